"""Shares of images with their 95 % intervals: top-k accuracy, agreement, and the ratio of two accuracies.

Images count as independent: the intervals hold for pictures drawn like these, not for new patients or cameras.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemamba.evaluation.bootstrap import CONFIDENCE, RESAMPLES

Hits = NDArray[np.bool_]

MINIMUM_IMAGES = 5
_NORMAL_QUANTILE = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Share:
    """A share, or a ratio of two, with its interval.

    Attributes:
        value: None where undefined.
        low, high: 95 % interval; None where there is none.
        method: how it was made, or why there is none.
        images: how many it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    method: str
    images: int

    def document(self, factor: float = 1.0) -> dict[str, Any]:
        """JSON; ``factor`` 100 turns shares into per cent."""
        ends = {key: getattr(self, key) for key in ("value", "low", "high")}
        scaled = {key: None if number is None else number * factor for key, number in ends.items()}
        return {**scaled, "method": self.method, "images": self.images}


def share(hits: Hits) -> Share:
    """Share of true values with Wilson's score interval (JASA 22, 1927), which has a width at 0 and 1 too."""
    images = len(hits)
    if images == 0:
        return Share(None, None, None, "no images", 0)
    point = float(hits.mean())
    if images < MINIMUM_IMAGES:
        return Share(point, None, None, f"no interval: fewer than {MINIMUM_IMAGES} images", images)
    square = _NORMAL_QUANTILE**2 / images
    middle = (point + square / 2) / (1 + square)
    half = math.sqrt(square * point * (1 - point) + square**2 / 4) / (1 + square)
    return Share(point, max(0.0, min(middle - half, point)), min(1.0, max(middle + half, point)), "Wilson", images)


def balanced(hits: Hits, classes: NDArray[np.int64], *, seed: int = 0) -> Share:
    """Mean over the classes that occur of the share of true values in each, with a percentile bootstrap over images.

    Drawing images anew is drawing the counts of class and outcome from a multinomial distribution; a class that is not
    drawn is not in that resample's mean.
    """
    images = len(hits)
    if images == 0:
        return Share(None, None, None, "no images", 0)
    _, class_of = np.unique(classes, return_inverse=True)
    cells = np.bincount(2 * class_of + hits, minlength=2 * (int(class_of.max()) + 1)).reshape(-1, 2)
    point = float((cells[:, 1] / cells.sum(axis=1)).mean())
    if images < MINIMUM_IMAGES:
        return Share(point, None, None, f"no interval: fewer than {MINIMUM_IMAGES} images", images)
    draws = np.random.default_rng(seed).multinomial(images, cells.reshape(-1) / images, size=RESAMPLES)
    drawn = draws.reshape(RESAMPLES, -1, 2)
    totals = drawn.sum(axis=2)
    shares = np.divide(drawn[:, :, 1], totals, out=np.zeros(totals.shape), where=totals > 0)
    values = shares.sum(axis=1) / (totals > 0).sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Share(point, float(low), float(high), "percentile bootstrap", images)


def ratio(above: Hits, below: Hits, *, seed: int = 0) -> Share:
    """sum(above) / sum(below) over the same images, with a paired percentile bootstrap over images.

    An image is one of four kinds (right or wrong by either), so drawing images anew is drawing the kinds' counts from
    a multinomial distribution.
    """
    images, right = len(below), int(below.sum())
    if right == 0:
        return Share(None, None, None, "undefined: the reference has none right", images)
    point = float(above.sum()) / right
    if images < MINIMUM_IMAGES:
        return Share(point, None, None, f"no interval: fewer than {MINIMUM_IMAGES} images", images)
    kinds = np.bincount(2 * above.astype(np.int64) + below, minlength=4)
    draws = np.random.default_rng(seed).multinomial(images, kinds / images, size=RESAMPLES)
    totals = draws[:, 1] + draws[:, 3]
    values = (draws[:, 2] + draws[:, 3])[totals > 0] / totals[totals > 0]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Share(point, float(low), float(high), "paired percentile bootstrap", images)
