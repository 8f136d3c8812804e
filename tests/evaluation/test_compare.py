"""Retention: both predictors on each picture once, counts only, against masks kept in full."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgemamba.console import Console
from edgemamba.evaluation.compare import compare, evaluate_pair
from edgemamba.evaluation.evaluate import evaluate

QUIET = Console(quiet=True)
SIZE = (16, 20)


def masks_of(dataset, channel: int) -> list[np.ndarray]:
    """Predicted masks of the pictures that have the network's size, where nothing is resized."""
    return [dataset.planes(index)[:, :, channel] for index in own_size(dataset)]


def own_size(dataset) -> list[int]:
    return [index for index in range(30) if dataset.planes(index).shape[:2] == SIZE]


def test_each_predictor_sees_each_picture_once(squares, plane):
    first, second = plane(1), plane(2)
    evaluate_pair(first, second, squares, range(30), SIZE, QUIET, split="patient")
    assert (first.seen, second.seen) == (30, 30)


def test_agreement_equals_that_of_the_masks_themselves(squares, plane):
    found = evaluate_pair(plane(1), plane(2), squares, own_size(squares), SIZE, QUIET, split="patient")
    first, second = (np.concatenate([m.ravel() for m in masks_of(squares, c)]) for c in (1, 2))
    assert found.equal_pixels == pytest.approx((first == second).mean())
    assert found.mask_dice == pytest.approx(2 * (first & second).sum() / (first.sum() + second.sum()))
    assert found.mean_abs == pytest.approx(np.abs(first.astype(float) - second).mean())
    assert found.max_abs == 1


def test_both_sides_equal_evaluations_run_alone(squares, plane):
    found = evaluate_pair(plane(1), plane(2), squares, range(30), SIZE, QUIET, split="patient")
    assert found.reference == evaluate(plane(1), squares, range(30), SIZE, QUIET, split="patient")
    assert found.candidate == evaluate(plane(2), squares, range(30), SIZE, QUIET, split="patient")


def test_retention_is_the_quotient_of_the_two_figures(squares, plane):
    found = evaluate_pair(plane(1), plane(2), squares, range(30), SIZE, QUIET, split="patient")
    document = found.document()
    for name in ("pooled", "tumour_slices", "volume", "volume_median", "image"):
        row = document["protocols"][name]
        assert row["retention_percent"]["value"] == pytest.approx(100 * row["candidate"] / row["reference"])
        assert row["reference"] == found.reference.value(name)
        assert row["retention_percent"]["low"] <= row["retention_percent"]["value"] <= row["retention_percent"]["high"]
    drop = found.reference.value("tumour_slices") - found.candidate.value("tumour_slices")
    assert document["mean_slice_drop"]["value"] == pytest.approx(drop)
    assert "left_out" in document["protocols"]["paper_batch16"]
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_false_alarms_of_both_and_their_rise(squares, plane):
    found = evaluate_pair(plane(1), plane(2), squares, own_size(squares), SIZE, QUIET, split="patient")
    counts = []
    truths = masks_of(squares, 0)
    for channel in (1, 2):
        predictions = masks_of(squares, channel)
        counts.append(sum(bool(p.any()) and not t.any() for p, t in zip(predictions, truths, strict=True)))
    empty = sum(not t.any() for t in truths)
    document = found.document()["false_alarms"]
    assert [document[side]["count"] for side in ("reference", "candidate")] == counts
    assert document["rise"]["value"] == pytest.approx((counts[1] - counts[0]) / empty)


def test_a_candidate_equal_to_its_reference_keeps_everything(squares, plane):
    found = evaluate_pair(plane(1), plane(1), squares, range(30), SIZE, QUIET, split="image")
    document = found.document()
    for row in document["protocols"].values():
        if "left_out" not in row:
            kept = row["retention_percent"]
            assert (kept["value"], kept["low"], kept["high"]) == pytest.approx((100, 100, 100))
    assert document["mask_agreement"] == {"equal_pixels": 1.0, "unequal_pixels": 0, "dice": 1.0}
    assert document["worst_slices"] == document["worst_patients"] == []
    assert document["probability"] == {"mean_abs_difference": 0.0, "max_abs_difference": 0.0}


def test_two_empty_predictors_agree_and_retain_nothing_that_could_be_measured(squares):
    def empty(images):
        return np.zeros_like(images[:, 0])

    found = evaluate_pair(empty, empty, squares, range(30), SIZE, QUIET, split="patient")
    assert found.mask_dice == found.equal_pixels == 1
    kept = found.document()["protocols"]["pooled"]["retention_percent"]
    assert kept["value"] is None
    assert kept["method"] == "no interval: undefined"


def test_largest_disagreements_and_patient_drops_are_sorted(squares, plane):
    found = evaluate_pair(plane(0), plane(2), squares, own_size(squares), SIZE, QUIET, split="patient")
    rows = found.largest_disagreements(5)
    unequal = {
        index: int((squares.planes(index)[:, :, 0] != squares.planes(index)[:, :, 2]).sum())
        for index in own_size(squares)
    }
    assert [row[2].unequal for row in rows] == sorted(unequal.values(), reverse=True)[:5]
    assert all(unequal[before.index] == change.unequal for before, _, change in rows)
    drops = [row["drop"] for row in found.patient_drops(9)]
    assert drops == sorted(drops, reverse=True)
    assert all(drop > 0 for drop in drops)


def test_evaluations_of_other_slices_are_refused(squares, plane):
    pair = evaluate_pair(plane(1), plane(2), squares, [1, 2, 3], SIZE, QUIET, split="patient")
    other = evaluate(plane(2), squares, [3, 2, 1], SIZE, QUIET, split="patient")
    with pytest.raises(ValueError, match="same slices"):
        compare(pair.reference, other, pair.differences)
    strict = evaluate(plane(2), squares, [1, 2, 3], SIZE, QUIET, 0.7, split="patient")
    with pytest.raises(ValueError, match="one threshold"):
        compare(pair.reference, strict, pair.differences)
