"""History, axes and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgemamba.train.drawing import labels, log_ticks, ticks
from edgemamba.train.history import Row, best, to_csv
from edgemamba.train.plots import save_curves
from edgemamba.train.segmentation import SegmentationTask
from edgemamba.train.slices import CORRECT, FALSE, MISSED, choose, save_sample

HEADLINE = SegmentationTask.headline


def row(epoch: int, dice: float | None) -> Row:
    scores = {"train_dice": 0.4, "val_dice_pooled": dice, "val_dice_tumour": None, "val_iou": None}
    return Row(epoch, epoch * 10, 1e-3, 0.5, 0.6, scores, 1.5, 20.0, 1 << 20)


def test_best_is_the_highest_and_the_later_of_equals() -> None:
    table = [row(1, 0.5), row(2, 0.7), row(3, 0.7), row(4, None)]
    assert best(table, HEADLINE) is table[2]
    assert best([row(1, None), row(2, None)], HEADLINE) == row(2, None)
    assert best([], HEADLINE) is None


def test_undefined_values_are_empty_cells() -> None:
    assert to_csv([row(1, None)]).splitlines()[1] == "1,10,0.001,0.5,0.4,0.6,,,,1.5,20,1048576"


@given(st.floats(-1e6, 1e6), st.floats(1e-9, 1e6))
def test_ticks_cover_the_range_with_few_round_numbers(low: float, span: float) -> None:
    values = ticks(low, low + span)
    slack = 1e-6 * max(span, abs(low) * 1e-5, 1e-6)
    assert values[0] <= low + slack
    assert values[-1] >= low + span - slack
    assert 1 <= len(values) <= 7 or span < 1e-6
    assert values == sorted(values)


@given(st.floats(1e-6, 1e4), st.floats(1, 1e4))
def test_log_ticks_cover_the_range(low: float, ratio: float) -> None:
    values = log_ticks(low, low * ratio)
    assert values[0] <= low * (1 + 1e-6)
    assert values[-1] >= low * ratio * (1 - 1e-6)
    assert len(values) >= 2
    assert values == sorted(values)


def test_labels_of_small_numbers_are_all_powers_of_ten() -> None:
    assert labels([0, 0.0005, 0.001]) == ["0", "5e-4", "1e-3"]
    assert labels([0, 0.2, 1.0]) == ["0", "0.2", "1"]


def test_curves_of_one_epoch_and_of_undefined_values(tmp_path: Path) -> None:
    for name, table in (
        ("one", [row(1, 0.5)]),
        ("none", [row(1, None), row(2, None)]),
        ("many", [row(i, 0.5) for i in range(1, 151)]),
    ):
        save_curves(tmp_path / f"{name}.png", table, SegmentationTask(), "title")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size == (1080, 360)
            assert len(image.getcolors(1 << 20) or []) > 20


def test_choice_of_slices() -> None:
    dice = np.array([0.9, np.nan, 0.1, 0.5, np.nan, 0.8, 0.2])
    false_pixels = np.array([500, 3, 0, 0, 40, 0, 0])
    chosen = dict(choose(dice, false_pixels))
    assert (chosen["best-1"], chosen["worst-1"], chosen["false-alarm-1"]) == (0, 2, 4)
    assert len(set(chosen.values())) == len(chosen)
    assert dict(choose(np.array([0.4]), np.array([0]))) == {"best-1": 0}
    assert choose(np.array([np.nan, np.nan]), np.array([0, 0])) == []


def test_errors_are_coloured_by_their_kind(tmp_path: Path) -> None:
    packed = np.zeros((4, 32, 32), np.uint8)
    packed[3, :16] = 255
    predicted = np.zeros((32, 32), bool)
    predicted[8:24] = True
    save_sample(tmp_path / "x.png", packed, predicted, "a slice")
    with Image.open(tmp_path / "x.png") as image:
        last = 8 + 3 * 264 + 128
        seen = [image.getpixel((last, 48 + 256 * part // 8 + 16)) for part in (0, 2, 5, 7)]
    expected = [tuple(round(0.6 * value) for value in colour) for colour in (MISSED, CORRECT, FALSE, (0, 0, 0))]
    assert seen == expected
