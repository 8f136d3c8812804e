"""Evaluation from pictures to document, at each picture's own size."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from edgemamba.console import Console
from edgemamba.data import open_dataset, split_dataset
from edgemamba.errors import InputError, VerificationError
from edgemamba.evaluation.evaluate import evaluate

QUIET = Console(quiet=True)


def test_counts_are_those_of_the_masks_at_their_own_size(squares, plane):
    indices = [7, 3, 0, 12, 19, 4, 25, 5, 11, 29]
    found = evaluate(plane(1), squares, indices, (64, 64), QUIET, split="patient")
    assert [one.index for one in found.slices] == indices
    for one in found.slices:
        planes = squares.planes(one.index)
        assert (one.height, one.width) == planes.shape[:2]
        assert one.true == int(planes[:, :, 0].sum())
        # The network's input is the picture enlarged, its answer is brought back: independently with Pillow.
        green = Image.fromarray(planes[:, :, 1] * np.uint8(255)).resize((64, 64), Image.Resampling.BILINEAR)
        back = Image.fromarray(np.asarray(green, np.float32) / np.float32(255))
        mask = np.asarray(back.resize((one.width, one.height), Image.Resampling.BILINEAR)) >= 0.5
        assert one.predicted == int(mask.sum())
        assert one.true_positive == int((mask & (planes[:, :, 0] == 1)).sum())


def test_perfect_and_empty_predictors(squares, plane):
    everything = range(len(squares.samples))
    perfect = evaluate(plane(0), squares, everything, (48, 60), QUIET, split="patient")
    assert perfect.value("pooled") > 0.95
    empty = evaluate(lambda images: np.zeros_like(images[:, 0]), squares, everything, (16, 16), QUIET, split="patient")
    tumour = sum(bool(squares.planes(index)[:, :, 0].any()) for index in everything)
    document = empty.document()
    assert document["protocols"]["pooled"]["dice"]["value"] == 0
    assert document["protocols"]["image"]["dice"]["value"] == pytest.approx(1 - tumour / 30)
    assert document["missed_lesions"]["count"] == document["missed_lesions"]["of"] == tumour
    assert document["false_alarms"]["count"] == 0
    assert document["false_alarms"]["rate"]["high"] > 0


def test_threshold_is_inclusive(squares):
    half = evaluate(lambda images: np.full_like(images[:, 0], 0.5), squares, [1], (8, 8), QUIET, split="x")
    assert half.slices[0].predicted == half.slices[0].height * half.slices[0].width
    above = evaluate(lambda images: np.full_like(images[:, 0], 0.5), squares, [1], (8, 8), QUIET, 0.51, split="x")
    assert above.slices[0].predicted == 0


def test_document_is_strict_json_and_leaves_out_what_makes_no_sense(squares, plane):
    documents = {
        split: evaluate(plane(1), squares, range(30), (32, 32), QUIET, split=split).document()
        for split in ("image", "fold:1")
    }
    for document in documents.values():
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert all(row["definition"] for row in document["protocols"].values())
    assert "left_out" in documents["fold:1"]["protocols"]["paper_batch16"]
    assert documents["fold:1"]["split_note"] == ""
    assert "known patients" in documents["image"]["split_note"]
    assert "left_out" in documents["image"]["protocols"]["volume"]
    paper = documents["image"]["protocols"]["paper_batch16"]
    assert (paper["n"], paper["empty_batches"], paper["unit"]) == (2, 0, "batches")
    volume = documents["fold:1"]["protocols"]["volume"]
    assert volume["n"] == volume["dice"]["patients"] == 6
    assert 0 <= volume["dice"]["low"] <= volume["dice"]["value"] <= volume["dice"]["high"] <= 1


def test_the_papers_batches_follow_the_hash_of_the_ids_not_the_callers_order(squares, plane):
    import hashlib

    forward = evaluate(plane(1), squares, range(30), (32, 32), QUIET, split="image")
    backward = evaluate(plane(1), squares, range(29, -1, -1), (32, 32), QUIET, split="image")
    assert forward.document() == backward.document()
    rows = sorted(forward.slices, key=lambda one: hashlib.sha256(one.id.encode()).hexdigest())
    batches = [rows[:16], rows[16:]]
    expected = [
        2 * sum(one.true_positive for one in batch) / sum(one.predicted + one.true for one in batch)
        for batch in batches
    ]
    assert forward.value("paper_batch16") == pytest.approx(np.mean(expected))


def test_patients_without_a_tumour_are_counted_apart(squares, plane):
    class Healthy(type(squares)):
        def planes(self, index):
            planes = super().planes(index)
            if self.samples[index].patient in ("p1", "p2"):
                planes[:, :, 0] = 0
            if self.samples[index].patient == "p2":
                planes[:, :, 1] = 0
            return planes

    found = evaluate(plane(1), Healthy(), range(30), (16, 20), QUIET, split="patient")
    document = found.document()
    assert document["patients_without_tumour"] == {"count": 2, "with_false_alarm": 1}
    assert document["protocols"]["volume"]["n"] == 4
    rows = {row["patient"]: row for row in found.per_patient()}
    assert rows["p2"]["dice"] is None
    assert rows["p1"]["dice"] == 0
    values = [rows[name]["dice"] for name in ("p0", "p3", "p4", "p5")]
    assert found.value("volume") == pytest.approx(np.mean(values))
    assert found.value("volume_median") == pytest.approx(np.median(values))
    assert document["protocols"]["volume"]["below_half"] == sum(value < 0.5 for value in values)


def test_worst_cases_and_examples(squares, plane):
    found = evaluate(plane(1), squares, range(30), (32, 32), QUIET, split="patient")
    dices = [one.dice for one in found.worst(30)]
    assert dices == sorted(dices)
    assert all(one.true for one in found.worst(30))
    examples = found.examples()
    assert examples["worst"] == found.worst(1)[0]
    assert examples["best"].dice == max(dices)
    assert examples["median"].dice == dices[len(dices) // 2]
    alarms = found.largest_false_alarms(30)
    assert all(one.true == 0 and one.predicted for one in alarms)
    assert [one.predicted for one in alarms] == sorted((one.predicted for one in alarms), reverse=True)


def test_rows_round_trip_through_csv(squares, plane):
    found = evaluate(plane(1), squares, range(30), (32, 32), QUIET, split="patient")
    rows = list(csv.DictReader(io.StringIO(found.per_slice_csv())))
    assert len(rows) == 30
    for row, one in zip(rows, found.slices, strict=True):
        assert (row["id"], int(row["true_positive"])) == (one.id, one.true_positive)
        assert row["dice"] == ("" if one.dice is None else str(one.dice))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_that_gives_nan_is_not_an_empty_mask(squares, bad):
    def predict(images):
        found = images[:, 0].copy()
        found[1, 3, 3] = bad
        return found

    with pytest.raises(VerificationError, match=squares.samples[9].id):
        evaluate(predict, squares, [4, 9, 2], (16, 16), QUIET, split="patient")


def test_nothing_to_evaluate(squares, plane):
    with pytest.raises(InputError, match="no slices"):
        evaluate(plane(0), squares, [], (16, 16), QUIET, split="patient")


def test_phantoms_with_an_image_split():
    dataset = open_dataset("phantoms")
    test = split_dataset(dataset, "image").test[:20]
    found = evaluate(lambda images: images[:, 1], dataset, test, (64, 64), QUIET, split="image")
    assert found.dataset == "phantoms"
    assert [one.true for one in found.slices] == [int(dataset.read(index)[1].sum()) for index in test]
