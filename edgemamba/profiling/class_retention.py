"""Score a classifier's artifact beside the fp32 PyTorch model on held-out images, on the artifact's own runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgemamba.console import Console
from edgemamba.profiling.pictures import thumbnail
from edgemamba.profiling.quality import ClassCase, ClassRetention, ClassScore, Quantity
from edgemamba.profiling.reference import Reference
from edgemamba.profiling.retention import LEAKY, choose

if TYPE_CHECKING:
    from edgemamba.evaluation.classes import ClassComparison
    from edgemamba.evaluation.shares import Share


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
) -> ClassRetention:
    """Run both on the test split; arguments as of ``retention.measure``.

    Raises:
        InputError: an image cannot be read, or is of a class that the network does not know.
        VerificationError: a model gives NaN.
    """
    from edgemamba.evaluation.classes import classify, compare_classes
    from edgemamba.evaluation.predictors import bundle_predictor
    from edgemamba.models.predictor import torch_predictor

    split = reference.split
    candidate = bundle_predictor(bundle, runtime, threads)
    before = torch_predictor(reference.build(), task="classification")
    found = compare_classes(
        *classify(
            [before, candidate],
            reference.dataset,
            choose(split.test, images),
            candidate.size,
            console,
            labels=reference.manifest.labels,
            split=split.spec,
        )
    )
    cases = [_case(reference, found, row, show_ids) for row in found.largest_changes(disagreements)]
    sides = (found.reference, found.candidate)
    top1, top5 = ([_quantity(side.accuracy(top)) for side in sides] for top in (1, 5))
    return ClassRetention(
        data=reference.dataset.label,
        split=split.spec,
        split_note=LEAKY if split.leaky else "",
        fingerprint=reference.dataset.fingerprint(),
        images=len(found.reference.ids),
        of_images=len(split.test),
        classes=len(found.reference.labels),
        runtime=f"{candidate.runtime} {candidate.version}",
        top1_reference=top1[0],
        top1_artifact=top1[1],
        top5_reference=top5[0],
        top5_artifact=top5[1],
        retention_pct=_quantity(found.retention(), 100.0),
        top5_retention_pct=_quantity(found.retention(5), 100.0),
        same_class_pct=_quantity(found.agreement(), 100.0),
        lost=int(found.lost().sum()),
        gained=int(found.gained().sum()),
        mean_variation=float(found.variation.mean()),
        mean_abs_difference=found.mean_abs,
        max_abs_difference=found.max_abs,
        scores=_scores(found),
        cases=cases,
    )


def _scores(found: ClassComparison) -> list[ClassScore]:
    after = {row["class"]: row["top1"] for row in found.candidate.per_class()}
    return [
        ClassScore(
            label=row["label"],
            images=row["images"],
            top1_reference=row["top1"],
            top1_artifact=after[row["class"]],
        )
        for row in found.reference.per_class()
    ]


def _case(reference: Reference, found: ClassComparison, row: int, show_ids: bool) -> ClassCase:
    """One image whose first class changes."""
    before, after = found.reference, found.candidate
    image, _ = reference.dataset.read(before.indices[row])
    webp, (small,) = thumbnail(image, [np.zeros(image.shape[:2], np.uint8)])
    return ClassCase(
        label=before.ids[row] if show_ids else f"image {row + 1}",
        image_webp=webp,
        width=small.shape[1],
        height=small.shape[0],
        truth=before.labels[int(before.truth[row])],
        reference=before.labels[int(before.first[row])],
        artifact=before.labels[int(after.first[row])],
        probability_reference=float(before.probability[row]),
        probability_artifact=float(after.probability[row]),
    )


def _quantity(found: Share, factor: float = 1.0) -> Quantity:
    """A share as it stands in a report."""
    document = found.document(factor)
    known = document["low"] is not None
    return Quantity(
        value=document["value"],
        low=document["low"],
        high=document["high"],
        method=f"{found.method} over {found.images} images" if known else "",
        reason="" if known else found.method,
    )
