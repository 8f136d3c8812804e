"""Protocols against per-pixel loops, hand-computed cases and golden numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemamba.evaluation.metrics import (
    PROTOCOLS,
    Scores,
    count_slice,
    empty_batches,
    false_alarms,
    missed_lesions,
    scores_of,
)


def scores(patients, predicted, true) -> Scores:
    return scores_of(patients, [count_slice(p, t) for p, t in zip(predicted, true, strict=True)])


def dice(name: str, found: Scores, overlap="dice") -> float:
    return PROTOCOLS[name].statistic(found, overlap).point()


# --- golden numbers ----------------------------------------------------------------------------------------


def uniform(stream: int, count: int) -> np.ndarray:
    """The integer hash behind the golden vectors, in [0, 1)."""
    mask = np.uint64(0xFFFFFFFF)
    h = (
        np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(stream + 1) * np.uint64(2246822519)
    ) & mask
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(739982445)) & mask
    h ^= h >> np.uint64(12)
    h = (h * np.uint64(695872825)) & mask
    h ^= h >> np.uint64(15)
    return h / 2.0**32


@pytest.mark.parametrize(
    ("logit", "overlap", "expected"),
    [
        (0.0, "dice", 0.3976401179941),
        (0.0, "iou", 0.248159050941467),
        (0.5, "dice", 0.355909694555113),
    ],
)
def test_golden_hard_dice_and_iou(logit, overlap, expected):
    logits = 3 * (2 * uniform(3030, 2 * 32 * 32).reshape(2, 32, 32) - 1)
    true = (uniform(1000001, 2 * 32 * 32) < 0.3).reshape(2, 32, 32).astype(np.uint8)
    found = scores(["a", "b"], (logits >= logit).astype(np.uint8), true)
    value = dice("pooled", found, overlap)
    if overlap == "iou":
        value = float(np.float32(value))  # the source gave this one in single precision
    assert value == pytest.approx(expected, abs=1e-13)


# --- by hand -----------------------------------------------------------------------------------------------


def hand() -> Scores:
    """a: a half-found lesion, a missed one; b: a false alarm, a clean empty slice; c: a perfect slice."""
    return scores_of(["a", "a", "b", "b", "c"], [(5, 10, 10), (0, 0, 10), (0, 4, 0), (0, 0, 0), (6, 6, 6)])


def test_hand_computed_case():
    found = hand()
    assert dice("pooled", found) == pytest.approx(22 / 46)
    assert dice("pooled", found, "iou") == pytest.approx(11 / 35)
    assert dice("tumour_slices", found) == pytest.approx((0.5 + 0 + 1) / 3)
    assert dice("tumour_slices", found, "iou") == pytest.approx((1 / 3 + 0 + 1) / 3)
    assert dice("image", found) == pytest.approx((0.5 + 0 + 0 + 1 + 1) / 5)
    assert dice("volume", found) == pytest.approx((10 / 30 + 1) / 2)
    assert dice("volume_median", found) == pytest.approx((10 / 30 + 1) / 2)
    assert [PROTOCOLS[name].units(found) for name in ("tumour_slices", "volume", "image")] == [3, 2, 5]
    assert missed_lesions(found)[0].tolist() == [False, True, False, False, False]
    assert false_alarms(found)[0].tolist() == [False, False, True, False, False]
    assert false_alarms(found)[1].tolist() == [False, False, True, True, False]


def test_paper_batches_leave_out_the_undefined_ones_in_dice_and_count_them_zero_in_iou():
    counts = [(3, 4, 4)] * 16 + [(0, 0, 0)] * 16 + [(0, 0, 0)] * 15 + [(1, 2, 1)] + [(0, 5, 0)] * 3
    found = scores_of(["p"] * len(counts), counts)
    assert PROTOCOLS["paper_batch16"].units(found) == 4
    assert empty_batches(found) == 1
    assert dice("paper_batch16", found) == pytest.approx((0.75 + 2 / 3 + 0) / 3)
    assert dice("paper_batch16", found, "iou") == pytest.approx((3 / 5 + 0 + 1 / 2 + 0) / 4)


def test_predicting_nothing_scores_the_share_of_empty_slices_under_the_image_protocol_alone():
    found = scores_of([f"p{i % 10}" for i in range(100)], [(0, 0, 0)] * 65 + [(0, 0, 50)] * 35)
    assert dice("image", found) == pytest.approx(0.65)
    for name in ("pooled", "tumour_slices", "volume"):
        assert dice(name, found) == 0


def test_nothing_true_and_nothing_found_is_undefined_not_perfect():
    found = scores_of(["a", "b"], [(0, 0, 0), (0, 0, 0)])
    for name in ("pooled", "tumour_slices", "volume", "volume_median", "paper_batch16"):
        assert math.isnan(dice(name, found))


@pytest.mark.parametrize("bad", [(5, 4, 6), (5, 6, 4), (-1, 4, 4)])
def test_impossible_counts_are_refused(bad):
    with pytest.raises(ValueError, match="true positives"):
        scores_of(["a"], [bad])


def test_protocols_name_the_splits_on_which_they_make_sense():
    assert PROTOCOLS["paper_batch16"].left_out("image") == ""
    assert "image split only" in PROTOCOLS["paper_batch16"].left_out("fold:2")
    assert "volumes" in PROTOCOLS["volume"].left_out("image")
    assert PROTOCOLS["volume"].left_out("patient") == ""
    assert PROTOCOLS["pooled"].left_out("image") == PROTOCOLS["pooled"].left_out("fold:1") == ""


# --- against per-pixel loops -------------------------------------------------------------------------------


def loop_overlap(predicted, true) -> tuple[int, int, int]:
    both = area = union = 0
    for p, t in zip(np.ravel(predicted).tolist(), np.ravel(true).tolist(), strict=True):
        both += p and t
        area += p + t
        union += p or t
    return both, area, union


def brute(name: str, patients, predicted, true, overlap: str) -> float:
    """Every protocol from the masks themselves."""

    def quotient(indices, empty: float) -> float:
        both, area, union = loop_overlap(predicted[indices], true[indices])
        if not area:
            return empty
        return 2 * both / area if overlap == "dice" else both / union

    slices = range(len(patients))
    groups = {p: [i for i in slices if patients[i] == p] for p in patients}
    if name == "pooled":
        return quotient(list(slices), math.nan)
    if name == "tumour_slices":
        return float(np.mean([quotient([i], math.nan) for i in slices if true[i].any()]))
    if name == "image":
        return float(np.mean([quotient([i], 1.0) for i in slices]))
    if name == "paper_batch16":
        batches = [list(slices)[k : k + 16] for k in range(0, len(patients), 16)]
        if overlap == "dice":
            return float(np.nanmean([quotient(batch, math.nan) for batch in batches]))
        return float(np.mean([quotient(batch, 0.0) for batch in batches]))
    volumes = [quotient(indices, math.nan) for indices in groups.values() if true[indices].any()]
    return float(np.mean(volumes) if name == "volume" else np.median(volumes))


@pytest.mark.parametrize("overlap", ["dice", "iou"])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_equal_per_pixel_loops(name, overlap, random_pairs):
    for seed in range(4):
        patients, predicted, true = random_pairs(seed, slices=37, patients=6)
        found = dice(name, scores(patients, predicted, true), overlap)
        assert found == pytest.approx(brute(name, patients, predicted, true, overlap), abs=1e-12)


# --- laws --------------------------------------------------------------------------------------------------


@st.composite
def any_scores(draw) -> Scores:
    rows = draw(st.lists(st.tuples(st.integers(0, 4), *[st.integers(0, 50)] * 3), min_size=1, max_size=40))
    return scores_of([f"p{p}" for p, *_ in rows], [(tp, tp + a, tp + b) for _, tp, a, b in rows])


@given(any_scores(), st.sampled_from(sorted(PROTOCOLS)))
def test_every_figure_lies_between_0_and_1_and_iou_is_never_above_dice(found, name):
    value, iou = dice(name, found), dice(name, found, "iou")
    assert math.isnan(value) or 0 <= iou <= value + 1e-12 <= 1 + 2e-12


@given(any_scores())
def test_pooled_iou_follows_from_pooled_dice(found):
    value = dice("pooled", found)
    assert math.isnan(value) or dice("pooled", found, "iou") == pytest.approx(value / (2 - value))


@given(any_scores(), any_scores())
def test_adding_scores_is_scoring_all_slices(first, second):
    both = first + second
    above = np.concatenate([first.true_positive, second.true_positive]).sum() * 2
    below = sum(int(part.sum()) for one in (first, second) for part in (one.predicted, one.true))
    assert len(both) == len(first) + len(second)
    assert math.isnan(dice("pooled", both)) if not below else dice("pooled", both) == pytest.approx(above / below)


@given(any_scores(), st.randoms(use_true_random=False))
def test_only_the_paper_protocol_depends_on_the_order(found, random):
    order = list(range(len(found)))
    random.shuffle(order)
    mixed = Scores(
        tuple(found.patients[i] for i in order),
        found.true_positive[order],
        found.predicted[order],
        found.true[order],
    )
    for name in set(PROTOCOLS) - {"paper_batch16"}:
        assert dice(name, mixed) == pytest.approx(dice(name, found), nan_ok=True)
