"""Statistics against brute force, known order statistics, and the coverage they promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from edgemamba.profiling import stats


def exact_cdf(successes: int, trials: int, share: float) -> float:
    return sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(successes + 1))


def test_a_percentile_needs_as_many_samples_as_early_stopping_says() -> None:
    """MLPerf's bound at 99 % confidence: with one sample fewer, two or more above the bound are not sure."""
    for percent, count in stats.ENOUGH.items():
        share = 1 - percent / 100
        assert exact_cdf(1, count, share) <= 0.01 < exact_cdf(1, count - 1, share)


@pytest.mark.parametrize(
    ("count", "percent", "low", "high"),
    [
        (100, 50, 40, 61), (100, 90, 84, 96), (300, 50, 133, 168), (300, 90, 259, 281), (1000, 50, 469, 532),
        (1000, 90, 881, 919), (1000, 99, 983, 997), (100, 99, 97, None), (3, 50, None, None),
    ],
)  # fmt: skip
def test_interval_ranks(count: int, percent: int, low: int | None, high: int | None) -> None:
    assert stats.interval_ranks(count, percent / 100) == (low, high)


@pytest.mark.parametrize("percent", stats.ENOUGH)
def test_too_few_samples_give_a_reason_and_no_number(percent: int) -> None:
    needed = stats.ENOUGH[percent]
    samples = np.arange(1.0, needed + 1)
    enough, few = stats.percentile(samples, percent), stats.percentile(samples[:-1], percent)
    assert enough.value == pytest.approx(np.percentile(samples, percent))
    assert few.value is None
    assert str(needed) in few.reason
    assert str(needed - 1) in few.reason


def test_an_interval_that_no_sample_bounds_is_open() -> None:
    found = stats.percentile(np.arange(700.0), 99)
    assert found.low is not None and found.high is not None
    found = stats.percentile(np.arange(64.0), 90)
    assert found.low is not None
    assert (found.high is None) == (stats.interval_ranks(64, 0.9)[1] is None)


def test_the_percentiles_interval_covers_the_true_quantile() -> None:
    rng = np.random.default_rng(1)
    quantiles = {50: 1.0, 90: math.exp(1.2815515655 * 0.3)}
    for percent, true in quantiles.items():
        hits = 0
        for _ in range(1000):
            found = stats.percentile(rng.lognormal(0, 0.3, 200), percent)
            assert found.low is not None and found.high is not None
            hits += found.low <= true <= found.high
        assert 0.935 <= hits / 1000 <= 0.985


def test_the_bootstrap_over_processes_is_the_exact_one() -> None:
    """Five medians: every one of the 5^5 resamples, enumerated."""
    medians = [10.0, 11.0, 13.0, 17.0, 18.0]
    every = [float(np.median(draw)) for draw in itertools.product(medians, repeat=5)]
    found = stats.process_median(medians)
    assert found.value == 13.0
    assert found.low == pytest.approx(np.quantile(every, 0.025))
    assert found.high == pytest.approx(np.quantile(every, 0.975))


def test_the_interval_over_processes_covers_the_true_median() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(600):
        found = stats.process_median((10 + rng.standard_t(4, 5)).tolist(), seed)
        assert found.low is not None and found.high is not None
        hits += found.low <= 10 <= found.high
    assert hits / 600 >= 0.93


def test_few_processes_have_no_interval() -> None:
    found = stats.process_median([1.0, 2.0, 3.0])
    assert (found.value, found.low, found.high) == (2.0, None, None)
    assert "needs 4" in found.reason
    assert stats.process_median([]).value is None


def test_blocks_keep_their_coverage_where_neighbours_are_alike() -> None:
    """Lag-1 correlation 0.7: order statistics, which assume independence, miss far more often."""
    rng = np.random.default_rng(3)
    hits = alone = 0
    trials = 100
    for seed in range(trials):
        noise = rng.standard_normal(450)
        series = np.empty(450)
        series[0] = noise[0]
        for i in range(1, 450):
            series[i] = 0.7 * series[i - 1] + math.sqrt(1 - 0.49) * noise[i]
        blocks, naive = stats.block_median(series[50:], seed), stats.percentile(series[50:], 50)
        assert None not in (blocks.low, blocks.high, naive.low, naive.high)
        hits += blocks.low <= 0 <= blocks.high  # type: ignore[operator]
        alone += naive.low <= 0 <= naive.high  # type: ignore[operator]
    assert hits / trials >= 0.87
    assert alone < hits


def test_block_bootstrap_needs_two_blocks() -> None:
    assert stats.block_median(np.ones(5)).value is None
    few = stats.block_median(np.arange(15.0))
    assert few.value == 7.0
    assert few.low is None
    constant = stats.block_median(np.full(40, 3.0))
    assert (constant.low, constant.value, constant.high) == (3.0, 3.0, 3.0)


def test_latency_against_numpy() -> None:
    rng = np.random.default_rng(4)
    processes = [rng.integers(9_000_000, 30_000_000, 150 + 10 * i) for i in range(5)]
    found = stats.latency([times.tolist() for times in processes])
    pooled = np.concatenate(processes) / 1e6
    assert found.n == len(pooled)
    assert found.min_ms == pytest.approx(pooled.min())
    assert found.max_ms == pytest.approx(pooled.max())
    assert found.mean_ms == pytest.approx(pooled.mean())
    assert found.mad_ms == pytest.approx(np.median(np.abs(pooled - np.median(pooled))))
    assert found.p50_ms.value == pytest.approx(np.percentile(pooled, 50))
    assert found.p95_ms.value == pytest.approx(np.percentile(pooled, 95))
    assert found.typical_ms.value == pytest.approx(np.median([np.median(times) / 1e6 for times in processes]))
    assert len(found.process_medians_ms) == 5


def test_one_process_speaks_of_itself_alone() -> None:
    found = stats.latency([np.random.default_rng(5).integers(9_000, 11_000, 200).tolist()])
    assert "one process" in found.typical_ms.method
    two = stats.latency([[1_000_000] * 20, [3_000_000] * 20])
    assert two.typical_ms.value == 2.0
    assert two.typical_ms.low is None


def test_drift_compares_the_last_quarter_with_the_first() -> None:
    assert stats.drift([100.0] * 40 + [110.0] * 40) == pytest.approx(0.1)
    assert stats.drift([1.0] * 19) is None
