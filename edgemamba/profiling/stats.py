"""Statistics of latency samples: percentiles with enough samples only, intervals free of a distribution.

The process, not the run, is the unit of repetition: runs of one process are correlated and share its memory
layout, so the headline is the median of the process medians. No sample is ever removed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgemamba.profiling.quality import Quantity
from edgemamba.profiling.records import Latency

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000
BLOCK = 10
MINIMUM_PROCESSES = 4
# From how many runs on a percentile is reported: the least n with BinomCDF(1; n, 1 - percent / 100) <= 0.01, which
# bounds it with one sample to spare above it. Source: MLPerf Inference, early stopping criterion.
ENOUGH = {50: 11, 90: 64, 95: 130, 99: 662}
_CHUNK_NUMBERS = 4_000_000


def interval_ranks(count: int, share: float) -> tuple[int | None, int | None]:
    """Ranks (from 1) of the order statistics that enclose the ``share`` quantile, independent samples, 95 %.

    None where no sample lies far enough out.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = 0, None
    total = 0.0
    up, down = math.log(share), math.log1p(-share)
    for k in range(count):
        # total = P(X <= k); rank k + 1 is a lower limit while it is <= tail, an upper one from 1 - tail on.
        choose = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        total += math.exp(choose + k * up + (count - k) * down)
        if total <= tail:
            low = k + 1
        if total >= 1 - tail:
            high = k + 1
            break
    return (low or None), high


def percentile(samples_ms: Floats, percent: int) -> Quantity:
    """A percentile with its order-statistic interval, or the reason why there are too few samples.

    Args:
        samples_ms: (n,) all timed runs.
        percent: 50, 90, 95 or 99.
    """
    count, needed = len(samples_ms), ENOUGH[percent]
    if count < needed:
        return Quantity(value=None, reason=f"n = {count}, p{percent} needs {needed}")
    ordered = np.sort(samples_ms)
    low, high = interval_ranks(count, percent / 100)
    open_end = "" if low and high else f"interval open at the {'top' if low else 'bottom'}: n = {count} is too small"
    return Quantity(
        value=float(np.percentile(ordered, percent)),
        low=float(ordered[low - 1]) if low else None,
        high=float(ordered[high - 1]) if high else None,
        method="order statistics",
        reason=open_end,
    )


def process_median(medians_ms: Sequence[float], seed: int = 0) -> Quantity:
    """Median of process medians, percentile bootstrap over processes.

    Args:
        medians_ms: one median a fresh process.
        seed: of the resampling.
    """
    values = np.asarray(medians_ms, np.float64)
    if not len(values):
        return Quantity(value=None, reason="no process")
    middle = float(np.median(values))
    if len(values) < MINIMUM_PROCESSES:
        count = f"{len(values)} process" + ("es" if len(values) > 1 else "")
        return Quantity(value=middle, reason=f"no interval over {count}, needs {MINIMUM_PROCESSES}")
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = _limits(np.median(values[draws], axis=1))
    return Quantity(value=middle, low=low, high=high, method=f"bootstrap over {len(values)} processes")


def block_median(samples_ms: Floats, seed: int = 0) -> Quantity:
    """Median of one process's runs in order, moving-block bootstrap: neighbouring runs are correlated.

    Blocks are as long as the square root of n, at least ``BLOCK``. The interval speaks of this process alone.

    Args:
        samples_ms: (n,) timed runs in order.
        seed: of the resampling.
    """
    count = len(samples_ms)
    if count < ENOUGH[50]:
        return Quantity(value=None, reason=f"n = {count}, the median needs {ENOUGH[50]}")
    length = min(count, max(BLOCK, math.isqrt(count)))
    if count < 2 * length:
        return Quantity(value=float(np.median(samples_ms)), reason=f"no interval: n = {count} is under two blocks")
    rng = np.random.default_rng(seed)
    blocks = -(-count // length)
    inside = np.arange(length)
    medians = np.empty(RESAMPLES)
    step = max(1, _CHUNK_NUMBERS // count)
    for first in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - first)
        starts = rng.integers(count - length + 1, size=(rows, blocks, 1))
        drawn = (starts + inside).reshape(rows, -1)[:, :count]
        medians[first : first + rows] = np.median(samples_ms[drawn], axis=1)
    low, high = _limits(medians)
    return Quantity(
        value=float(np.median(samples_ms)),
        low=low,
        high=high,
        method=f"bootstrap of blocks of {length} runs, one process",
    )


def typical(processes_ms: Sequence[Floats], seed: int = 0) -> Quantity:
    """The headline: over processes where there are enough of them, else over blocks of the only process."""
    if len(processes_ms) == 1:
        return block_median(processes_ms[0], seed)
    return process_median([float(np.median(times)) for times in processes_ms], seed)


def latency(processes_ns: Sequence[Sequence[int]]) -> Latency:
    """Statistics of the timed runs of all processes.

    Args:
        processes_ns: a list a process: nanoseconds of its timed runs in order, at least one run each.
    """
    processes = [np.asarray(times, np.float64) / 1e6 for times in processes_ns]
    pooled = np.concatenate(processes)
    middle = float(np.median(pooled))
    return Latency(
        typical_ms=typical(processes),
        p50_ms=percentile(pooled, 50),
        p90_ms=percentile(pooled, 90),
        p95_ms=percentile(pooled, 95),
        p99_ms=percentile(pooled, 99),
        min_ms=float(pooled.min()),
        max_ms=float(pooled.max()),
        mean_ms=float(pooled.mean()),
        mad_ms=float(np.median(np.abs(pooled - middle))),
        process_medians_ms=[float(np.median(times)) for times in processes],
        n=len(pooled),
    )


def drift(times: Sequence[float]) -> float | None:
    """Median of the last quarter over the median of the first, minus one; None below 20 runs."""
    quarter = len(times) // 4
    if quarter < 5:
        return None
    return float(np.median(times[-quarter:]) / np.median(times[:quarter]) - 1)


def _limits(values: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
