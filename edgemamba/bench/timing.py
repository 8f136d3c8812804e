"""Interleaved CPU times of contestants in one process, and ratios between them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ratio:
    """``slower`` time / ``faster`` time: median of the rounds' ratios with a bootstrap 95 % interval."""

    slower: str
    faster: str
    ratio: float
    low: float
    high: float
    bar: float | None

    def document(self) -> dict[str, Any]:
        """JSON form; ``met`` is null without a bar."""
        values = {
            key: round(value, 2) for key, value in (("ratio", self.ratio), ("low", self.low), ("high", self.high))
        }
        met = None if self.bar is None else self.ratio >= self.bar
        return {"slower": self.slower, "faster": self.faster, **values, "bar": self.bar, "met": met}


def interleave(contestants: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 3) -> dict[str, list[float]]:
    """Run every contestant once a round, in rotating order.

    Returns:
        CPU seconds of this process a call, per contestant, one value a round. One thread is the caller's business.
    """
    names = list(contestants)
    for name in names:
        for _ in range(warmup):
            contestants[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            started = time.process_time()
            contestants[name]()
            times[name].append(time.process_time() - started)
    return times


def ratio(times: Mapping[str, list[float]], slower: str, faster: str, bar: float | None = None, seed: int = 0) -> Ratio:
    """Ratio of median times with a paired bootstrap over rounds (2,000 resamples)."""
    a, b = np.asarray(times[slower]), np.asarray(times[faster])
    pick = np.random.default_rng(seed).integers(0, len(a), (2000, len(a)))
    resampled = np.median(a[pick], 1) / np.median(b[pick], 1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Ratio(slower, faster, float(np.median(a) / np.median(b)), float(low), float(high), bar)
