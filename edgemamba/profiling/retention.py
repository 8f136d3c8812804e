"""Score the artifact beside the fp32 PyTorch model on held-out images, on the artifact's own runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemamba.board.images import to_mask
from edgemamba.console import Console
from edgemamba.profiling.pictures import encode_runs, thumbnail
from edgemamba.profiling.quality import Case, PatientScore, Quantity, Rate, Retention
from edgemamba.profiling.reference import Reference

if TYPE_CHECKING:
    from edgemamba.evaluation import compare
    from edgemamba.evaluation.bootstrap import Estimate
    from edgemamba.evaluation.evaluate import Predict

DEFAULT_IMAGES = 400
LEAKY = "Slices of one patient are in training and in test: this measures known patients, not new ones"


def measure(
    reference: Reference,
    bundle: Path,
    console: Console,
    *,
    runtime: str,
    threads: int,
    images: int | None,
    disagreements: int,
    show_ids: bool,
) -> Retention:
    """Run both on the test split.

    Args:
        reference: fp32 weights and data.
        bundle: checked folder.
        console: progress.
        runtime, threads: as timed.
        images: at most so many, evenly over the split; None takes all up to ``DEFAULT_IMAGES``.
        disagreements: pictures of so many slices where the masks differ most, and of the worst, median and
            best; 0 takes no picture.
        show_ids: name patients and slices instead of numbering them.

    Raises:
        InputError: an image cannot be read.
        VerificationError: a model gives NaN.
    """
    from edgemamba.evaluation.compare import evaluate_pair
    from edgemamba.evaluation.predictors import bundle_predictor
    from edgemamba.models.predictor import torch_predictor

    split = reference.split
    chosen = choose(split.test, images)
    candidate = bundle_predictor(bundle, runtime, threads)
    before = torch_predictor(reference.build())
    found = evaluate_pair(
        before,
        candidate,
        reference.dataset,
        chosen,
        candidate.size,
        console,
        candidate.threshold,
        split=split.spec,
    )
    names = _names(reference, show_ids)
    cases = _cases(before, candidate, reference, found, disagreements, names) if disagreements else []
    return _record(reference, found, f"{candidate.runtime} {candidate.version}", len(split.test), names, cases)


def choose(test: Sequence[int], images: int | None) -> list[int]:
    """Positions of the images to score: all, or ``images`` spread evenly over the split."""
    limit = images if images is not None else DEFAULT_IMAGES
    if len(test) <= limit:
        return list(test)
    return [test[index] for index in np.linspace(0, len(test) - 1, limit).round().astype(int).tolist()]


def _names(reference: Reference, show_ids: bool) -> dict[str, str]:
    """What a patient is called in the report: its id, or its number in the test split."""
    samples = reference.dataset.samples
    patients = sorted({samples[index].patient for index in reference.split.test})
    return {name: name if show_ids else f"{number}" for number, name in enumerate(patients, 1)}


def _record(
    reference: Reference,
    found: compare.Retention,
    runtime: str,
    total: int,
    names: dict[str, str],
    cases: list[Case],
) -> Retention:
    from edgemamba.evaluation.bootstrap import estimate
    from edgemamba.evaluation.metrics import PROTOCOLS

    document = found.document(worst=0)
    pooled = PROTOCOLS["pooled"]
    alarms, missed = document["false_alarms"], document["missed_lesions"]
    sides = [
        quantity(estimate(pooled.statistic(side.scores, "dice"), bounds=(0, 1)))
        for side in (found.reference, found.candidate)
    ]
    after = {row["patient"]: row["dice"] for row in found.candidate.per_patient()}
    return Retention(
        data=reference.dataset.label,
        split=reference.split.spec,
        split_note=LEAKY if reference.split.leaky else "",
        fingerprint=reference.dataset.fingerprint(),
        images=document["slices"],
        of_images=total,
        patients=document["patients"],
        runtime=runtime,
        headline=pooled.definition,
        dice_reference=sides[0],
        dice_artifact=sides[1],
        retention_pct=quantity(found.retention(), 100.0),
        mask_agreement_pct=100.0 * found.equal_pixels,
        mask_dice=found.mask_dice if math.isfinite(found.mask_dice) else None,
        mean_abs_difference=found.mean_abs,
        max_abs_difference=found.max_abs,
        false_alarms_reference=_rate(alarms["reference"]),
        false_alarms_artifact=_rate(alarms["candidate"]),
        missed_reference=_rate(missed["reference"]),
        missed_artifact=_rate(missed["candidate"]),
        protocols=document["protocols"],
        scores=[
            PatientScore(
                patient=names[row["patient"]],
                images=row["slices"],
                tumour_images=row["tumour_slices"],
                dice_reference=row["dice"],
                dice_artifact=after[row["patient"]],
            )
            for row in found.reference.per_patient()
        ],
        cases=cases,
    )


def quantity(found: Estimate, factor: float = 1.0) -> Quantity:
    """An estimate as it stands in a report."""
    document = found.document(factor)
    known = document["low"] is not None
    return Quantity(
        value=document["value"],
        low=document["low"],
        high=document["high"],
        method=f"{document['method']} over {document['patients']} patients" if known else "",
        reason="" if known else document["method"],
    )


def _rate(document: dict[str, Any]) -> Rate:
    rate = document["rate"]
    known = rate["low"] is not None
    share = rate["value"]
    return Rate(
        count=document["count"],
        of=document["of"],
        rate_pct=Quantity(
            value=None if share is None else 100 * share,
            low=100 * rate["low"] if known else None,
            high=100 * rate["high"] if known else None,
            method=rate["method"] if known else "",
            reason="" if known else rate["method"],
        ),
    )


def _cases(
    reference: Predict,
    candidate: Predict,
    source: Reference,
    found: compare.Retention,
    disagreements: int,
    names: dict[str, str],
) -> list[Case]:
    """Worst, median and best slice by the artifact's Dice, then the largest disagreements; each once."""
    from edgemamba.evaluation.evaluate import probabilities, read_batches
    from edgemamba.evaluation.pictures import shown

    examples = found.candidate.examples()
    why: dict[int, list[str]] = {}
    for name in ("worst", "median", "best"):
        if name in examples:
            why.setdefault(examples[name].index, []).append(f"{name} Dice")
    for number, (before, _, _) in enumerate(found.largest_disagreements(disagreements), 1):
        why.setdefault(before.index, []).append("largest disagreement" if number == 1 else f"disagreement {number}")
    rows = {
        before.index: (before, after, change)
        for before, after, change in zip(found.reference.slices, found.candidate.slices, found.differences, strict=True)
    }
    cases = []
    for index, reasons in why.items():
        before, after, change = rows[index]
        batch = next(read_batches(source.dataset, [index], found.reference.size))
        channel, image = shown(batch.images[0], source.dataset)
        truth = batch.truths[0]
        height, width = truth.shape
        masks = [
            to_mask(probabilities(predict, batch, source.dataset)[0], found.reference.threshold, (height, width))
            for predict in (reference, candidate)
        ]
        webp, small = thumbnail(image, [truth, *masks])
        cases.append(
            Case(
                label=f"patient {names[before.patient]}, slice {before.number}",
                why=reasons,
                height=small[0].shape[0],
                width=small[0].shape[1],
                channel=channel,
                image_webp=webp,
                truth=encode_runs(small[0]),
                reference=encode_runs(small[1]),
                artifact=encode_runs(small[2]),
                dice_reference=before.dice,
                dice_artifact=after.dice,
                unequal_pixels=change.unequal,
            )
        )
    return cases
