"""Score a predictor on slices of a data set: counts a slice, then every protocol with its interval.

A predictor is any function from images (n, 3, h, w) float32 in [0, 1] to lesion probabilities (n, h, w)
float32. Masks are compared at each image's own size, so images of different sizes work and the network's
input size costs what it costs.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemamba.board.images import to_input, to_mask
from edgemamba.console import Console
from edgemamba.errors import InputError, VerificationError
from edgemamba.evaluation.bootstrap import CONFIDENCE, RESAMPLES, estimate, estimate_rate
from edgemamba.evaluation.metrics import (
    PROTOCOLS,
    Scores,
    count_slice,
    empty_batches,
    false_alarms,
    missed_lesions,
    scores_of,
)
from edgemamba.files import sha256_bytes

if TYPE_CHECKING:
    from edgemamba.data.base import Dataset

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Predict = Callable[[Floats], Floats]

SCALE = 1.0 / 255.0
_BATCH = 8
_LEAKY = "slices of one patient are in training and in test: this measures known patients, not new ones"


@dataclasses.dataclass(frozen=True)
class SliceScore:
    """What one slice gave.

    Attributes:
        index: position in the data set.
        id, patient, number: of the sample.
        height, width: of the image, pixels; the counts are at this size.
        true_positive, predicted, true: pixels.
    """

    index: int
    id: str
    patient: str
    number: int
    height: int
    width: int
    true_positive: int
    predicted: int
    true: int

    @property
    def dice(self) -> float | None:
        """Dice of this slice; None where both masks are empty."""
        area = self.predicted + self.true
        return 2 * self.true_positive / area if area else None

    def row(self) -> dict[str, Any]:
        """Flat record for JSON and CSV."""
        return {**dataclasses.asdict(self), "dice": self.dice}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Every slice's counts, and what follows from them.

    Attributes:
        dataset: name of the data set.
        split: image, patient, fold:K or a name of the caller's.
        size: network input height and width, pixels.
        threshold: probability from which a pixel counts as lesion.
        slices: in the order in which they were scored.
        postprocessing: what was done to whole volumes; None: nothing.
    """

    dataset: str
    split: str
    size: tuple[int, int]
    threshold: float
    slices: tuple[SliceScore, ...]
    postprocessing: dict[str, Any] | None = None

    @functools.cached_property
    def scores(self) -> Scores:
        """The counts as arrays, ordered by the SHA-256 of the slices' ids.

        That is the image split's own order, and like the papers' shuffled one it mixes patients; the figure
        of ``paper_batch16`` depends on it.
        """
        order = sorted(self.slices, key=lambda one: (sha256_bytes(one.id.encode()), one.id))
        counts = [(one.true_positive, one.predicted, one.true) for one in order]
        return scores_of([one.patient for one in order], counts)

    def value(self, protocol: str = "pooled") -> float:
        """Dice under a protocol; NaN where undefined."""
        return PROTOCOLS[protocol].statistic(self.scores, "dice").point()

    def worst(self, count: int) -> list[SliceScore]:
        """Slices with a tumour, lowest Dice first, larger tumours first among equals."""
        tumour = [one for one in self.slices if one.true]
        return sorted(tumour, key=lambda one: (one.dice, -one.true, one.id))[:count]

    def largest_false_alarms(self, count: int) -> list[SliceScore]:
        """Slices without a tumour, most predicted pixels first."""
        alarms = [one for one in self.slices if not one.true and one.predicted]
        return sorted(alarms, key=lambda one: (-one.predicted, one.id))[:count]

    def examples(self) -> dict[str, SliceScore]:
        """Best, median and worst slice with a tumour, by Dice; empty without any tumour."""
        ranked = self.worst(len(self.slices))
        if not ranked:
            return {}
        return {"best": ranked[-1], "median": ranked[len(ranked) // 2], "worst": ranked[0]}

    def per_slice(self) -> list[dict[str, Any]]:
        """A row a slice."""
        return [one.row() for one in self.slices]

    def per_slice_csv(self) -> str:
        """The rows of ``per_slice`` as CSV; Dice is empty where both masks are."""
        stream = io.StringIO()
        names = [*(field.name for field in dataclasses.fields(SliceScore)), "dice"]
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.per_slice())
        return stream.getvalue()

    def per_patient(self) -> list[dict[str, Any]]:
        """A row a patient, lowest Dice first: counts summed over its slices; Dice None if both empty."""
        rows: dict[str, dict[str, Any]] = {}
        for one in self.slices:
            blank = {
                "patient": one.patient,
                "slices": 0,
                "tumour_slices": 0,
                "true_positive": 0,
                "predicted": 0,
                "true": 0,
            }
            row = rows.setdefault(one.patient, blank)
            row["slices"] += 1
            row["tumour_slices"] += one.true > 0
            for name in ("true_positive", "predicted", "true"):
                row[name] += getattr(one, name)
        for row in rows.values():
            area = row["predicted"] + row["true"]
            row["dice"] = 2 * row["true_positive"] / area if area else None
        return sorted(rows.values(), key=lambda row: (row["dice"] is None, row["dice"], row["patient"]))

    def document(self, *, seed: int = 0, worst: int = 10) -> dict[str, Any]:
        """Everything but the rows, as strict JSON.

        Args:
            seed: of the bootstrap.
            worst: how many worst slices and largest false alarms to list.
        """
        scores = self.scores
        return {
            "schema": "edgemamba.evaluation/1",
            "dataset": self.dataset,
            "split": self.split,
            "split_note": _LEAKY if self.split == "image" else "",
            "size": list(self.size),
            "threshold": self.threshold,
            **({} if self.postprocessing is None else {"postprocessing": self.postprocessing}),
            "slices": len(scores),
            "patients": len(set(scores.patients)),
            "interval": {
                "confidence": CONFIDENCE,
                "clusters": "patient",
                "resamples": RESAMPLES,
                "seed": seed,
            },
            "headline": "pooled",
            "protocols": {name: self._protocol(name, seed) for name in PROTOCOLS},
            "patients_without_tumour": self._without_tumour(),
            "missed_lesions": rate_document(scores, missed_lesions, "slices with a tumour and an empty prediction"),
            "false_alarms": rate_document(scores, false_alarms, "slices without a tumour and with any predicted pixel"),
            "worst_slices": [one.row() for one in self.worst(worst)],
            "largest_false_alarms": [one.row() for one in self.largest_false_alarms(worst)],
        }

    def _protocol(self, name: str, seed: int) -> dict[str, Any]:
        protocol, scores = PROTOCOLS[name], self.scores
        reason = protocol.left_out(self.split)
        if reason:
            return {"definition": protocol.definition, "left_out": reason}
        found: dict[str, Any] = {
            "definition": protocol.definition,
            "n": protocol.units(scores),
            "unit": protocol.unit,
        }
        for overlap in ("dice", "iou"):
            statistic = protocol.statistic(scores, overlap)
            found[overlap] = estimate(statistic, bounds=(0, 1), seed=seed).document()
        if name == "volume":
            values = [row["dice"] for row in self.per_patient() if row["true"]]
            found["below_half"] = sum(value < 0.5 for value in values)
        if name == "paper_batch16":
            found["order"] = "by SHA-256 of the slice's id, as the split orders them"
            found["empty_batches"] = empty_batches(scores)
        return found

    def _without_tumour(self) -> dict[str, int]:
        rows = [row for row in self.per_patient() if not row["true"]]
        return {"count": len(rows), "with_false_alarm": sum(row["predicted"] > 0 for row in rows)}


Events = Callable[[Scores], tuple[NDArray[np.bool_], NDArray[np.bool_]]]


def rate_document(scores: Scores, events: Events, definition: str) -> dict[str, Any]:
    """JSON of a rate: how many slices, of how many, with the share's interval."""
    happened, among = events(scores)
    rate = estimate_rate(scores.by_patient(happened), scores.by_patient(among))
    return {
        "definition": definition,
        "count": int(happened.sum()),
        "of": int(among.sum()),
        "rate": rate.document(),
    }


@dataclasses.dataclass(frozen=True)
class Batch:
    """A few slices as read.

    Attributes:
        indices: positions in the data set.
        images: uint8 (H, W, 3) each.
        truths: masks uint8 (H, W) of 0 and 1 each, or classes.
        inputs: float32 (n, 3, h, w).
    """

    indices: tuple[int, ...]
    images: tuple[Pixels, ...]
    truths: tuple[Pixels, ...]
    inputs: Floats


def read_batches(dataset: Dataset, indices: Sequence[int], size: tuple[int, int]) -> Iterator[Batch]:
    """Read slices in order, a few at a time.

    Raises:
        InputError: an image or its mask cannot be read.
    """
    for start in range(0, len(indices), _BATCH):
        chosen = tuple(indices[start : start + _BATCH])
        pairs = [dataset.read(index) for index in chosen]
        inputs = np.concatenate([to_input(image, size, SCALE) for image, _ in pairs])
        yield Batch(chosen, tuple(image for image, _ in pairs), tuple(truth for _, truth in pairs), inputs)


def probabilities(predict: Predict, batch: Batch, dataset: Dataset) -> Floats:
    """What a predictor says about a batch: (n, h, w).

    Raises:
        VerificationError: NaN or infinity (compared with a threshold, NaN would pass as an empty mask).
    """
    found = predict(batch.inputs)
    count, _, height, width = batch.inputs.shape
    if found.shape != (count, height, width):
        raise ValueError(f"a predictor must give {(count, height, width)}, not {found.shape}")
    finite = np.isfinite(found).reshape(count, -1).all(axis=1)
    if not finite.all():
        bad = dataset.samples[batch.indices[int(np.argmin(finite))]].id
        raise VerificationError(
            f"the model gives NaN or infinity on {bad}",
            hint="check the weights and the precision of the artifact",
        )
    return found


def score_slice(dataset: Dataset, index: int, predicted: Pixels, true: Pixels) -> SliceScore:
    """Compare a predicted with the true mask, both uint8 (H, W)."""
    sample = dataset.samples[index]
    height, width = true.shape
    return SliceScore(index, sample.id, sample.patient, sample.number, height, width, *count_slice(predicted, true))


def refuse_nothing(indices: Sequence[int], split: str) -> None:
    """Raise InputError when there are no slices to score."""
    if not indices:
        raise InputError(f"no slices to evaluate in split {split}", hint="choose another --split, or give more data")


def evaluate(
    predict: Predict,
    dataset: Dataset,
    indices: Sequence[int],
    size: tuple[int, int],
    console: Console,
    threshold: float = 0.5,
    *,
    split: str,
) -> Evaluation:
    """Score ``predict`` on the slices ``indices``, in this order.

    Args:
        predict: images (n, 3, h, w) float32 in [0, 1] to probabilities (n, h, w).
        dataset: where the slices are read from.
        indices: positions in ``dataset``.
        size: network input (h, w), pixels.
        console: progress.
        threshold: a probability of at least this is lesion.
        split: name of the split the indices are from; it decides which protocols make sense.

    Raises:
        InputError: no slices, or one cannot be read.
        VerificationError: the predictor gives NaN or infinity.
    """
    refuse_nothing(indices, split)
    slices: list[SliceScore] = []
    with console.bar("evaluate", len(indices)) as bar:
        for batch in read_batches(dataset, indices, size):
            found = probabilities(predict, batch, dataset)
            for index, probability, mask in zip(batch.indices, found, batch.truths, strict=True):
                slices.append(score_slice(dataset, index, to_mask(probability, threshold, mask.shape), mask))
            bar.advance(len(batch.indices))
    return Evaluation(dataset.label, split, size, threshold, tuple(slices))
