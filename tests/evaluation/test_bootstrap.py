"""Intervals against plain loops, finite differences, closed forms, and their coverage in simulations."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from edgemamba.evaluation import bootstrap
from edgemamba.evaluation.bootstrap import (
    difference,
    estimate,
    estimate_rate,
    mean_of_ratios,
    median_of_patients,
    ratio,
    ratio_of_totals,
)
from edgemamba.evaluation.metrics import PROTOCOLS, count_slice, scores_of

RNG = np.random.default_rng(11)


def smooth_statistics():
    a, b = RNG.random((2, 9)) * 5, 5 + RNG.random((2, 9))
    grid = RNG.random((9, 4)), 1 + RNG.random((9, 4))
    simple = [ratio_of_totals(a[0], b[0]), ratio_of_totals(a[1], b[1])]
    holed = grid[1] * np.array([1, 1, 0, 1])
    return {
        "ratio_of_totals": simple[0],
        "mean_of_ratios": mean_of_ratios(*grid, empty=0.0),
        "mean without empty groups": mean_of_ratios(grid[0] * (holed > 0), holed, empty=math.nan),
        "ratio": ratio(*simple),
        "difference": difference(*simple),
        "ratio of means": ratio(mean_of_ratios(*grid, empty=math.nan), simple[1]),
    }


@pytest.mark.parametrize("name", smooth_statistics())
def test_gradients_equal_central_differences(name):
    statistic = smooth_statistics()[name]
    totals = statistic.features.sum(axis=0, keepdims=True)
    assert statistic.gradient is not None
    gradient = statistic.gradient(totals)[0]
    step = 1e-6
    for k in range(totals.shape[1]):
        if totals[0, k] == 0:
            continue
        change = np.zeros_like(totals)
        change[0, k] = step
        numeric = (statistic.value(totals + change) - statistic.value(totals - change))[0] / (2 * step)
        assert gradient[k] == pytest.approx(numeric, rel=1e-6, abs=1e-9)
    assert gradient @ totals[0] == pytest.approx(0, abs=1e-12)


def resampled(values: np.ndarray, figure, patients: int, seed: int, resamples: int) -> np.ndarray:
    """The figure of each resample, drawn patient by patient in a loop."""
    draws = np.random.default_rng(seed).integers(patients, size=(resamples, patients))
    return np.array([figure(values[draw]) for draw in draws])


def test_percentile_interval_equals_a_plain_loop():
    values = RNG.beta(4, 1, 80)
    expected = np.quantile(resampled(values, np.mean, 80, 5, 500), [0.025, 0.975])
    found = estimate(ratio_of_totals(values, np.ones(80)), seed=5, resamples=500)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.method == "percentile bootstrap"
    assert found.patients == 80


def test_bootstrap_t_equals_a_plain_loop():
    values = RNG.beta(4, 1, 20)

    def error(sample):
        return np.sqrt(((sample - sample.mean()) ** 2).sum() / (len(sample) * (len(sample) - 1)))

    point = values.mean()
    t = resampled(values, lambda sample: (sample.mean() - point) / error(sample), 20, 7, 800)
    upper, lower = np.quantile(t, [0.975, 0.025])
    found = estimate(ratio_of_totals(values, np.ones(20)), seed=7, resamples=800)
    assert (found.low, found.high) == pytest.approx(
        (point - upper * error(values), point - lower * error(values)), rel=1e-9
    )
    assert found.method == "bootstrap-t"


@pytest.mark.parametrize("count", [80, 81])
def test_median_interval_equals_a_plain_loop(count):
    values = RNG.beta(4, 1, count)
    statistic = median_of_patients(values)
    assert statistic.point() == np.median(values)
    expected = np.quantile(resampled(values, np.median, count, 2, 300), [0.025, 0.975])
    found = estimate(statistic, seed=2, resamples=300)
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_batch_statistic_of_a_resample_weighs_slices_by_how_often_their_patient_was_drawn(random_pairs):
    patients, predicted, true = random_pairs(4, slices=50, patients=7)
    counts = [count_slice(p, t) for p, t in zip(predicted, true, strict=True)]
    statistic = PROTOCOLS["paper_batch16"].statistic(scores_of(patients, counts), "dice")
    weights = np.array([0, 3, 1, 2, 0, 1, 0])
    names = sorted(set(patients))
    expected = []
    for start in range(0, 50, 16):
        above = below = 0
        for patient, (tp, p, t) in zip(patients[start : start + 16], counts[start : start + 16], strict=True):
            above += weights[names.index(patient)] * 2 * tp
            below += weights[names.index(patient)] * (p + t)
        if below:
            expected.append(above / below)
    assert statistic.value((weights @ statistic.features)[None])[0] == pytest.approx(np.mean(expected))


def coverage(patients: int, trials: int, figure) -> float:
    """Share of seeded trials whose interval holds the true mean of a left-skewed Dice (mean 0.8, sd 0.19)."""
    rng = np.random.default_rng(patients)
    mean, deviation = 0.8, 0.19
    size = mean * (1 - mean) / deviation**2 - 1
    hits = 0
    for trial in range(trials):
        values = rng.beta(mean * size, (1 - mean) * size, patients)
        found = figure(values, trial)
        hits += found.low <= mean <= found.high
    return hits / trials


def interval_of_mean(values, seed):
    return estimate(ratio_of_totals(values, np.ones(len(values))), bounds=(0, 1), seed=seed, resamples=600)


@pytest.mark.parametrize(("patients", "least"), [(11, 0.92), (22, 0.92), (55, 0.92), (110, 0.91)])
def test_intervals_cover_what_they_promise(patients, least):
    assert least <= coverage(patients, 300, interval_of_mean) <= 0.99


def test_bootstrap_t_covers_more_than_percentiles_for_few_patients(monkeypatch):
    with_t = coverage(11, 300, interval_of_mean)
    monkeypatch.setattr(bootstrap, "FEW_PATIENTS", 0)
    assert coverage(11, 300, interval_of_mean) <= with_t - 0.02


def test_paired_intervals_of_retention_cover_and_are_far_tighter_than_unpaired_ones():
    rng = np.random.default_rng(0)
    truth, hits, widths = 0.99, 0, []
    for trial in range(200):
        reference = rng.beta(4, 1, 22)
        kept = truth + 0.004 * rng.standard_normal(22)
        ones = np.ones(22)
        pair = ratio(ratio_of_totals(reference * kept, ones), ratio_of_totals(reference, ones))
        found = estimate(pair, seed=trial, resamples=500)
        hits += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    assert 0.90 <= hits / 200 <= 0.99
    assert np.median(widths) < 0.01
    assert interval_of_mean(reference, 0).high - interval_of_mean(reference, 0).low > 0.1


def test_seeded():
    statistic = ratio_of_totals(RNG.random(70), np.ones(70))
    assert estimate(statistic, seed=1) == estimate(statistic, seed=1)
    assert estimate(statistic, seed=1) != estimate(statistic, seed=2)


def test_why_there_is_no_interval():
    few = estimate(ratio_of_totals(np.array([0.5, 0.6]), np.ones(2)))
    assert few.method == "no interval: fewer than 5 patients"
    assert math.isnan(few.low) and few.value == pytest.approx(0.55)
    undefined = estimate(ratio_of_totals(np.zeros(9), np.zeros(9)))
    assert undefined.method == "no interval: undefined"
    assert undefined.document() == {
        "value": None, "low": None, "high": None, "method": "no interval: undefined", "patients": 0,
    }  # fmt: skip


def test_no_variation_gives_a_point():
    found = estimate(ratio_of_totals(np.full(30, 0.7), np.ones(30)))
    assert (found.low, found.value, found.high) == pytest.approx((0.7, 0.7, 0.7))
    assert found.method == "all patients agree"


def test_limits_stay_within_bounds():
    statistic = ratio_of_totals(np.array([1.0] * 5 + [0.2, 0.5, 0.97]), np.ones(8))
    assert estimate(statistic, bounds=(0, 1)).high == 1
    assert estimate(statistic, bounds=(0, 1)).method == "bootstrap-t"
    assert estimate(statistic).high > 1


def test_few_patients_that_nearly_all_agree_take_percentiles():
    found = estimate(ratio_of_totals(np.array([1.0] * 9 + [0.2]), np.ones(10)))
    assert found.method == "percentile bootstrap"
    assert 0.6 < found.low < found.value < found.high <= 1


def test_a_figure_without_a_gradient_takes_percentiles_even_for_few_patients():
    statistic = dataclasses.replace(ratio_of_totals(RNG.random(12), np.ones(12)), gradient=None)
    assert estimate(statistic).method == "percentile bootstrap"


# --- rates -------------------------------------------------------------------------------------------------


def test_wilson_without_clustering_equals_the_textbook():
    # 10 events in 100 trials, spread as evenly as can be: the design effect is held at 1.
    found = estimate_rate(np.ones(10), np.full(10, 10.0))
    assert (found.low, found.high) == pytest.approx((0.0552291, 0.1743657), abs=1e-6)


def test_no_events_still_has_an_upper_limit():
    found = estimate_rate(np.zeros(10), np.full(10, 10.0))
    z = 1.959963984540054
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(z**2 / (100 + z**2))


def test_clustered_events_widen_the_interval():
    spread = estimate_rate(np.ones(20), np.full(20, 10.0))
    heaped = estimate_rate(np.array([10.0, 10.0] + [0.0] * 18), np.full(20, 10.0))
    assert heaped.value == spread.value
    assert heaped.high - heaped.low > 2 * (spread.high - spread.low)


def test_rates_of_rare_events_cover():
    rng = np.random.default_rng(8)
    for patients, rate, least in ((22, 0.02, 0.85), (22, 0.2, 0.90), (55, 0.05, 0.90)):
        hits = 0
        for _ in range(400):
            own = rng.beta(rate * 10, (1 - rate) * 10, patients)
            trials = rng.integers(8, 30, patients)
            found = estimate_rate(rng.binomial(trials, own).astype(float), trials.astype(float))
            hits += found.low <= rate <= found.high
        assert least <= hits / 400 <= 0.99
