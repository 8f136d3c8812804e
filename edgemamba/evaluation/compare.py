"""How much of a reference's accuracy a candidate keeps: both run on each image once, only counts are kept.

Dice alone hides damage (an int8 net can keep 100.1 % of it while its masks agree to 0.94), so agreement of
the masks, the probabilities' difference and both false-alarm rates stand beside it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemamba.board.images import to_mask
from edgemamba.console import Console
from edgemamba.evaluation.bootstrap import Estimate, Statistic, difference, estimate, ratio, ratio_of_totals
from edgemamba.evaluation.evaluate import (
    Evaluation,
    Events,
    Pixels,
    Predict,
    SliceScore,
    probabilities,
    rate_document,
    read_batches,
    refuse_nothing,
    score_slice,
)
from edgemamba.evaluation.metrics import PROTOCOLS, Scores, count_slice, false_alarms, missed_lesions

if TYPE_CHECKING:
    from edgemamba.data.base import Dataset
    from edgemamba.evaluation.evaluate import Floats


@dataclasses.dataclass(frozen=True)
class SliceDifference:
    """How two predictors differ on one slice.

    Attributes:
        pixels: of the image.
        both, reference, candidate: pixels in both masks, in the reference's, in the candidate's.
        mean_abs, max_abs: |difference of the probabilities|, at the network's size.
    """

    pixels: int
    both: int
    reference: int
    candidate: int
    mean_abs: float
    max_abs: float

    @property
    def unequal(self) -> int:
        """Pixels that are in one mask only."""
        return self.reference + self.candidate - 2 * self.both


@dataclasses.dataclass(frozen=True)
class Retention:
    """A candidate beside its reference on the same slices.

    Attributes:
        reference, candidate: the two evaluations.
        differences: one a slice, in the same order.
    """

    reference: Evaluation
    candidate: Evaluation
    differences: tuple[SliceDifference, ...]

    def retention(self, protocol: str = "pooled", *, seed: int = 0) -> Estimate:
        """Candidate's Dice / reference's Dice as a share, with a paired 95 % interval over patients."""
        build = PROTOCOLS[protocol].statistic
        return estimate(ratio(build(self.candidate.scores, "dice"), build(self.reference.scores, "dice")), seed=seed)

    @property
    def equal_pixels(self) -> float:
        """Share of all pixels on which the two masks agree."""
        return 1 - sum(one.unequal for one in self.differences) / sum(one.pixels for one in self.differences)

    @property
    def mask_dice(self) -> float:
        """Dice between the two masks, pooled over all slices; 1 where neither predicts any pixel."""
        area = sum(one.reference + one.candidate for one in self.differences)
        return 2 * sum(one.both for one in self.differences) / area if area else 1.0

    @property
    def mean_abs(self) -> float:
        """Mean |difference of the probabilities| over all slices."""
        return math.fsum(one.mean_abs for one in self.differences) / len(self.differences)

    @property
    def max_abs(self) -> float:
        """Largest |difference of the probabilities|."""
        return max(one.max_abs for one in self.differences)

    def mean_slice_drop(self, *, seed: int = 0) -> Estimate:
        """Reference's minus candidate's mean Dice over the slices with a tumour; positive is a loss."""
        build = PROTOCOLS["tumour_slices"].statistic
        return estimate(
            difference(build(self.reference.scores, "dice"), build(self.candidate.scores, "dice")), seed=seed
        )

    def false_alarm_rise(self, *, seed: int = 0) -> Estimate:
        """Candidate's minus reference's share of empty slices with a false alarm; positive is a loss."""
        rates = [_rate(side.scores) for side in (self.candidate, self.reference)]
        return estimate(difference(*rates), seed=seed)

    def largest_disagreements(self, count: int) -> list[tuple[SliceScore, SliceScore, SliceDifference]]:
        """(reference, candidate, difference) of the slices with most unequal mask pixels."""
        rows = zip(self.reference.slices, self.candidate.slices, self.differences, strict=True)
        changed = [row for row in rows if row[2].unequal]
        return sorted(changed, key=lambda row: (-row[2].unequal, row[0].id))[:count]

    def patient_drops(self, count: int) -> list[dict[str, Any]]:
        """Patients whose Dice falls, most first; those without any true or predicted pixel are left out."""
        after = {row["patient"]: row["dice"] for row in self.candidate.per_patient()}
        rows = [
            {"patient": name, "reference": dice, "candidate": after[name], "drop": dice - after[name]}
            for name, dice in ((row["patient"], row["dice"]) for row in self.reference.per_patient())
            if dice is not None and after[name] is not None and dice > after[name]
        ]
        return sorted(rows, key=lambda row: (-row["drop"], row["patient"]))[:count]

    def document(self, *, seed: int = 0, worst: int = 10) -> dict[str, Any]:
        """Everything but the rows, as strict JSON.

        Args:
            seed: of the bootstrap.
            worst: how many slices and patients to list.
        """
        reference = self.reference
        return {
            "schema": "edgemamba.retention/1",
            "dataset": reference.dataset,
            "split": reference.split,
            "threshold": reference.threshold,
            "slices": len(reference.slices),
            "patients": len(set(reference.scores.patients)),
            "headline": "pooled",
            "protocols": {name: self._protocol(name, seed) for name in PROTOCOLS},
            "mask_agreement": {
                "equal_pixels": self.equal_pixels,
                "unequal_pixels": sum(one.unequal for one in self.differences),
                "dice": self.mask_dice,
            },
            "probability": {"mean_abs_difference": self.mean_abs, "max_abs_difference": self.max_abs},
            "false_alarms": {
                **self._both(false_alarms, "slices without a tumour and with any predicted pixel"),
                "rise": self.false_alarm_rise(seed=seed).document(),
            },
            "missed_lesions": self._both(missed_lesions, "slices with a tumour and an empty prediction"),
            "mean_slice_drop": self.mean_slice_drop(seed=seed).document(),
            "worst_patients": self.patient_drops(worst),
            "worst_slices": [
                {
                    "id": before.id,
                    "patient": before.patient,
                    "number": before.number,
                    "unequal_pixels": change.unequal,
                    "reference_dice": before.dice,
                    "candidate_dice": after.dice,
                    "max_abs_difference": change.max_abs,
                }
                for before, after, change in self.largest_disagreements(worst)
            ],
        }

    def _protocol(self, name: str, seed: int) -> dict[str, Any]:
        protocol = PROTOCOLS[name]
        reason = protocol.left_out(self.reference.split)
        if reason:
            return {"definition": protocol.definition, "left_out": reason}
        sides = {"reference": self.reference.value(name), "candidate": self.candidate.value(name)}
        return {
            "definition": protocol.definition,
            **{side: None if math.isnan(value) else value for side, value in sides.items()},
            "retention_percent": self.retention(name, seed=seed).document(100.0),
        }

    def _both(self, events: Events, definition: str) -> dict[str, Any]:
        return {
            "reference": rate_document(self.reference.scores, events, definition),
            "candidate": rate_document(self.candidate.scores, events, definition),
        }


def _rate(scores: Scores) -> Statistic:
    happened, among = false_alarms(scores)
    rate = ratio_of_totals(scores.by_patient(happened), scores.by_patient(among))
    # Alarms are rare: most resamples of few patients would have no standard error for bootstrap-t.
    return dataclasses.replace(rate, gradient=None)


def compare(reference: Evaluation, candidate: Evaluation, differences: Sequence[SliceDifference]) -> Retention:
    """Put two evaluations of the same slices side by side.

    Raises:
        ValueError: other slices, another order or another threshold.
    """
    keys = [[(one.id, one.height, one.width, one.true) for one in side.slices] for side in (reference, candidate)]
    if keys[0] != keys[1] or len(differences) != len(keys[0]) or reference.threshold != candidate.threshold:
        raise ValueError("retention needs two evaluations of the same slices, in one order, at one threshold")
    return Retention(reference, candidate, tuple(differences))


def evaluate_pair(
    reference: Predict,
    candidate: Predict,
    dataset: Dataset,
    indices: Sequence[int],
    size: tuple[int, int],
    console: Console,
    threshold: float = 0.5,
    *,
    split: str,
) -> Retention:
    """Run two predictors on each slice once and compare them; arguments as of ``evaluate``.

    Raises:
        InputError: no slices, or one cannot be read.
        VerificationError: a predictor gives NaN or infinity.
    """
    refuse_nothing(indices, split)
    before: list[SliceScore] = []
    after: list[SliceScore] = []
    differences: list[SliceDifference] = []
    with console.bar("compare", len(indices)) as bar:
        for batch in read_batches(dataset, indices, size):
            pair = [probabilities(predict, batch, dataset) for predict in (reference, candidate)]
            for index, first, second, true in zip(batch.indices, *pair, batch.truths, strict=True):
                masks = [to_mask(probability, threshold, true.shape) for probability in (first, second)]
                before.append(score_slice(dataset, index, masks[0], true))
                after.append(score_slice(dataset, index, masks[1], true))
                differences.append(_difference(first, second, masks))
            bar.advance(len(batch.indices))
    sides = [Evaluation(dataset.name, split, size, threshold, tuple(rows)) for rows in (before, after)]
    return compare(sides[0], sides[1], differences)


def _difference(first: Floats, second: Floats, masks: Sequence[Pixels]) -> SliceDifference:
    absolute = np.abs(first.astype(np.float64) - second)
    both, candidate, reference = count_slice(masks[1], masks[0])
    return SliceDifference(masks[0].size, both, reference, candidate, float(absolute.mean()), float(absolute.max()))
