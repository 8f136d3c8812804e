"""Dice and IoU under protocols whose names fix what is computed.

One net on one test set scores 0.60 to 0.90 depending on what is averaged: no figure is called just "Dice"
here. Everything is derived from three integers a slice: pixels that are true and predicted, predicted, and
true.

    pooled         the sums over all slices, then one quotient; the headline
    tumour_slices  mean over the slices that have a tumour
    volume         one quotient a patient (3-D), then mean and median over the patients that have a tumour
    paper_batch16  one quotient for every 16 consecutive slices, then the mean; as in the paper's tables
    image          mean over all slices, two empty masks counting 1: a trap, given because others publish it
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgemamba.evaluation.bootstrap import (
    Floats,
    Statistic,
    mean_of_ratios,
    median_of_patients,
    ratio_of_totals,
)

Overlap = Literal["dice", "iou"]
Counts = NDArray[np.int64]

BATCH = 16


@dataclasses.dataclass(frozen=True)
class Scores:
    """Pixel counts of n slices, in the order in which they were scored.

    Attributes:
        patients: patient of each slice.
        true_positive, predicted, true: pixels, int64 (n,).
    """

    patients: tuple[str, ...]
    true_positive: Counts
    predicted: Counts
    true: Counts

    def __post_init__(self) -> None:
        if not len(self.patients) == len(self.true_positive) == len(self.predicted) == len(self.true):
            raise ValueError("every slice needs a patient and three counts")
        if (self.true_positive < 0).any() or (self.true_positive > np.minimum(self.predicted, self.true)).any():
            raise ValueError("true positives must lie between 0 and both mask areas")

    def __len__(self) -> int:
        return len(self.patients)

    def __add__(self, other: Scores) -> Scores:
        """The slices of both (folds of a cross-validation), in order."""
        return Scores(
            self.patients + other.patients,
            np.concatenate([self.true_positive, other.true_positive]),
            np.concatenate([self.predicted, other.predicted]),
            np.concatenate([self.true, other.true]),
        )

    @functools.cached_property
    def cluster(self) -> Counts:
        """Number of each slice's patient, (n,), patients numbered by name."""
        number = {name: index for index, name in enumerate(sorted(set(self.patients)))}
        return np.array([number[name] for name in self.patients], dtype=np.int64)

    def parts(self, overlap: Overlap) -> tuple[Floats, Floats]:
        """Numerators and denominators (n,) of each slice's Dice 2 TP / (P + T) or IoU TP / (P + T - TP)."""
        area = (self.predicted + self.true).astype(np.float64)
        shared = self.true_positive.astype(np.float64)
        return (2 * shared, area) if overlap == "dice" else (shared, area - shared)

    def per_slice(self, overlap: Overlap) -> Floats:
        """Dice or IoU of each slice, (n,); NaN where both masks are empty."""
        above, below = self.parts(overlap)
        return np.divide(above, below, out=np.full(len(self), np.nan), where=below > 0)

    def by_patient(self, values: NDArray[np.generic]) -> Floats:
        """Sum of a value a slice, (n,), over each patient, (P,)."""
        patients = len(set(self.patients))
        return np.bincount(self.cluster, values.astype(np.float64), patients).astype(np.float64)


def count_slice(predicted: NDArray[np.uint8], true: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Pixels that are true and predicted, predicted, and true, of two masks (H, W) of 0 and 1."""
    if predicted.shape != true.shape:
        raise ValueError(f"the masks differ in size: {predicted.shape} and {true.shape}")
    first, second = predicted != 0, true != 0
    return int(np.count_nonzero(first & second)), int(np.count_nonzero(first)), int(np.count_nonzero(second))


def scores_of(patients: Sequence[str], counts: Sequence[tuple[int, int, int]]) -> Scores:
    """Scores of (true positive, predicted, true) a slice."""
    table = np.array(counts, dtype=np.int64).reshape(-1, 3)
    return Scores(tuple(patients), table[:, 0], table[:, 1], table[:, 2])


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One way to turn counts into a figure.

    Attributes:
        name: fixed name, as in every report.
        definition: one sentence, printed beside the figure.
        unit: what ``units`` counts.
        statistic: Scores and overlap -> figure over patients.
        units: Scores -> how many units are averaged.
        whole_patients: True needs a split that keeps patients whole, False one that does not, None either.
    """

    name: str
    definition: str
    unit: str
    statistic: Callable[[Scores, Overlap], Statistic]
    units: Callable[[Scores], int]
    whole_patients: bool | None = None

    def left_out(self, split: str) -> str:
        """Why this protocol says nothing on a split; empty when it does."""
        by_slice = split == "image"
        if self.whole_patients is True and by_slice:
            return "the image split holds single slices of a patient, not volumes"
        if self.whole_patients is False and not by_slice:
            return "image split only: without its mixed order many batches are almost empty"
        return ""


def _pooled(scores: Scores, overlap: Overlap) -> Statistic:
    above, below = scores.parts(overlap)
    return ratio_of_totals(scores.by_patient(above), scores.by_patient(below))


def _tumour_slices(scores: Scores, overlap: Overlap) -> Statistic:
    tumour = scores.true > 0
    values = np.where(tumour, scores.per_slice(overlap), 0.0)
    return ratio_of_totals(scores.by_patient(values), scores.by_patient(tumour))


def _image(scores: Scores, overlap: Overlap) -> Statistic:
    values = scores.per_slice(overlap)
    ones = np.ones(len(scores))
    return ratio_of_totals(scores.by_patient(np.where(np.isnan(values), 1.0, values)), scores.by_patient(ones))


def _volumes(scores: Scores, overlap: Overlap) -> Floats:
    """Dice or IoU of each patient that has a tumour."""
    above, below = (scores.by_patient(part) for part in scores.parts(overlap))
    tumour = scores.by_patient(scores.true) > 0
    return above[tumour] / below[tumour]


def _volume_mean(scores: Scores, overlap: Overlap) -> Statistic:
    values = _volumes(scores, overlap)
    return ratio_of_totals(values, np.ones(len(values)))


def _volume_median(scores: Scores, overlap: Overlap) -> Statistic:
    return median_of_patients(_volumes(scores, overlap))


def _paper_batch16(scores: Scores, overlap: Overlap) -> Statistic:
    batches = math.ceil(len(scores) / BATCH)
    patients = len(set(scores.patients))
    cell = scores.cluster * batches + np.arange(len(scores)) // BATCH

    def grid(values: Floats) -> Floats:
        return (
            np.bincount(cell, weights=values, minlength=patients * batches)
            .reshape(patients, batches)
            .astype(np.float64)
        )

    above, below = scores.parts(overlap)
    return mean_of_ratios(grid(above), grid(below), empty=math.nan if overlap == "dice" else 0.0)


def empty_batches(scores: Scores) -> int:
    """Batches of paper_batch16 without any true or predicted pixel: Dice 0/0."""
    area = scores.predicted + scores.true
    return sum(not area[start : start + BATCH].any() for start in range(0, len(scores), BATCH))


def _patients_with_tumour(scores: Scores) -> int:
    return int(np.count_nonzero(scores.by_patient(scores.true)))


_VOLUME = (
    "per patient 2 sum(TP) / (sum(predicted) + sum(true)) over all its slices, then the {} over patients "
    "with a tumour; patients without one are counted apart"
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "pooled",
            "2 sum(TP) / (sum(predicted) + sum(true)) over all pixels of all slices",
            "slices",
            _pooled,
            len,
        ),
        Protocol(
            "tumour_slices",
            "mean per-slice Dice over the slices that have a tumour",
            "slices with a tumour",
            _tumour_slices,
            lambda scores: int(np.count_nonzero(scores.true)),
        ),
        Protocol(
            "volume",
            _VOLUME.format("mean"),
            "patients with a tumour",
            _volume_mean,
            _patients_with_tumour,
            whole_patients=True,
        ),
        Protocol(
            "volume_median",
            _VOLUME.format("median"),
            "patients with a tumour",
            _volume_median,
            _patients_with_tumour,
            whole_patients=True,
        ),
        Protocol(
            "paper_batch16",
            f"2 sum(TP) / (sum(predicted) + sum(true)) over each {BATCH} consecutive slices in the split's "
            "order, no smoothing, then the mean over batches; a batch that is 0/0 is left out of the Dice "
            "and counts 0 in the IoU",
            "batches",
            _paper_batch16,
            lambda scores: math.ceil(len(scores) / BATCH),
            whole_patients=False,
        ),
        Protocol(
            "image",
            "mean per-slice Dice over all slices, two empty masks counting 1; a trap: predicting nothing at "
            "all already scores the share of empty slices",
            "slices",
            _image,
            len,
        ),
    )
}


def missed_lesions(scores: Scores) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Slices (n,) with a tumour and an empty prediction, among the slices with a tumour."""
    tumour = scores.true > 0
    return tumour & (scores.predicted == 0), tumour


def false_alarms(scores: Scores) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Slices (n,) without a tumour and with any predicted pixel, among the slices without a tumour."""
    empty = scores.true == 0
    return empty & (scores.predicted > 0), empty
