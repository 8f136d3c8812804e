"""95 % intervals that resample patients, never slices: slices of one patient are not independent.

Every reported figure is a function g of totals over patients, g(sum_p w_p F_p), where F_p are the patient's
features and w_p is how often the patient was drawn. One matrix product therefore evaluates all resamples, the
delta method gives each resample its own standard error, and two figures of the same patients combine into a
paired one.

Percentile intervals of a mean Dice are too narrow for few patients. Simulated for a left-skewed Dice (mean
0.8, deviation 0.19; 2,000 trials), a nominal 95 % covers 90 % at 11 patients, 92 % at 22, 93 % at 55 and 94 %
at 110; bootstrap-t covers 96, 96, 95 and 95 %. So smooth figures use bootstrap-t below ``FEW_PATIENTS``.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, sections 12.5 (bootstrap-t), 13.3
(percentile).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000
FEW_PATIENTS = 60
MINIMUM_PATIENTS = 5
_USABLE_SHARE = 0.9
_EQUAL = 1e-12
_NORMAL_QUANTILE = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Statistic:
    """One figure as a function of totals over patients.

    Attributes:
        features: (P, k), a row a patient.
        value: totals (R, k) -> figures (R,); NaN where undefined.
        gradient: totals (R, k) -> derivatives (R, k) of ``value``, which must not change when all totals are
            scaled by one factor; None for a figure that is not smooth (a median).
    """

    features: Floats
    value: Callable[[Floats], Floats]
    gradient: Callable[[Floats], Floats] | None

    def point(self) -> float:
        """The figure of the data as they are; NaN where undefined."""
        return float(self.value(self.features.sum(axis=0, keepdims=True))[0])


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: NaN where undefined.
        low, high: 95 % interval, NaN where there is none.
        method: how the interval was made, or why there is none.
        patients: patients that contribute.
    """

    value: float
    low: float
    high: float
    method: str
    patients: int

    def document(self, factor: float = 1.0) -> dict[str, Any]:
        """JSON; ``factor`` 100 turns shares into per cent; undefined numbers are null."""

        def number(value: float) -> float | None:
            return value * factor if math.isfinite(value) else None

        return {
            "value": number(self.value),
            "low": number(self.low),
            "high": number(self.high),
            "method": self.method,
            "patients": self.patients,
        }


def ratio_of_totals(numerator: Floats, denominator: Floats) -> Statistic:
    """sum(numerator) / sum(denominator) over patients, both (P,): pooled Dice, a mean over slices, a rate."""

    def value(totals: Floats) -> Floats:
        return _divide(totals[:, 0], totals[:, 1])

    def gradient(totals: Floats) -> Floats:
        inverse = _divide(np.ones(len(totals)), totals[:, 1])
        return np.stack([inverse, -value(totals) * inverse], axis=1)

    return Statistic(np.stack([numerator, denominator], axis=1).astype(np.float64), value, gradient)


def mean_of_ratios(numerators: Floats, denominators: Floats, *, empty: float) -> Statistic:
    """Mean over groups of sum(numerator) / sum(denominator), both (P, groups).

    Args:
        numerators, denominators: a row a patient, a column a group (a batch of slices).
        empty: value of a group whose denominator is zero; NaN leaves the group out of the mean.
    """
    groups = numerators.shape[1]
    left_out = math.isnan(empty)

    def counted(below: Floats) -> Floats:
        return (
            (below > 0).sum(axis=1, keepdims=True).astype(np.float64)
            if left_out
            else np.full((len(below), 1), float(groups))
        )

    def value(totals: Floats) -> Floats:
        above, below = totals[:, :groups], totals[:, groups:]
        shares = np.where(below > 0, _divide(above, below), 0.0 if left_out else empty)
        return _divide(shares.sum(axis=1), counted(below)[:, 0])

    def gradient(totals: Floats) -> Floats:
        above, below = totals[:, :groups], totals[:, groups:]
        inverse = np.where(below > 0, _divide(np.ones_like(below), below * counted(below)), 0.0)
        return np.concatenate([inverse, -np.where(below > 0, _divide(above, below), 0.0) * inverse], axis=1)

    features = np.concatenate([numerators, denominators], axis=1).astype(np.float64)
    return Statistic(features, value, gradient)


def median_of_patients(values: Floats) -> Statistic:
    """Median of one value a patient, (P,)."""
    order = np.argsort(values)
    ranked = values[order]

    def value(totals: Floats) -> Floats:
        drawn = np.cumsum(totals[:, order], axis=1)
        count = drawn[:, -1:]
        if not len(ranked):
            return np.full(len(totals), np.nan)
        lower = (drawn >= np.floor((count + 1) / 2)).argmax(axis=1)
        upper = (drawn >= np.floor(count / 2) + 1).argmax(axis=1)
        return (ranked[lower] + ranked[upper]) / 2

    return Statistic(np.eye(len(values)), value, None)


def ratio(above: Statistic, below: Statistic) -> Statistic:
    """above / below for the same patients (retention): both see the same resample."""

    def parts(totals: Floats) -> tuple[Floats, Floats]:
        split = above.features.shape[1]
        return totals[:, :split], totals[:, split:]

    def value(totals: Floats) -> Floats:
        first, second = parts(totals)
        return _divide(above.value(first), below.value(second))

    def gradient(totals: Floats) -> Floats:
        assert above.gradient is not None and below.gradient is not None
        first, second = parts(totals)
        inverse = _divide(np.ones(len(totals)), below.value(second))[:, None]
        share = value(totals)[:, None]
        return np.concatenate([above.gradient(first) * inverse, -below.gradient(second) * share * inverse], axis=1)

    return _paired(above, below, value, gradient)


def difference(first: Statistic, second: Statistic) -> Statistic:
    """first - second for the same patients."""
    split = first.features.shape[1]

    def value(totals: Floats) -> Floats:
        return first.value(totals[:, :split]) - second.value(totals[:, split:])

    def gradient(totals: Floats) -> Floats:
        assert first.gradient is not None and second.gradient is not None
        return np.concatenate([first.gradient(totals[:, :split]), -second.gradient(totals[:, split:])], axis=1)

    return _paired(first, second, value, gradient)


def estimate(
    statistic: Statistic,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """A figure with its 95 % interval over patients.

    Args:
        statistic: the figure.
        bounds: least and largest possible value; bootstrap-t limits are cut there.
        seed: of the resampling.
        resamples: number of resamples R.
    """
    point = statistic.point()
    features = statistic.features[np.any(statistic.features != 0, axis=1)]
    patients = len(features)

    def without(reason: str) -> Estimate:
        return Estimate(point, math.nan, math.nan, f"no interval: {reason}", patients)

    if math.isnan(point):
        return without("undefined")
    if patients < MINIMUM_PATIENTS:
        return without(f"fewer than {MINIMUM_PATIENTS} patients")
    weights = _weights(patients, resamples, seed)
    totals = weights @ features
    values = statistic.value(totals)
    usable = np.isfinite(values)
    if usable.mean() < _USABLE_SHARE:
        return without("undefined in many resamples")
    if np.allclose(values[usable], point, rtol=0, atol=_EQUAL):
        return Estimate(point, point, point, "all patients agree", patients)
    method, limits = "percentile bootstrap", _quantiles(values[usable])
    if statistic.gradient is not None and patients < FEW_PATIENTS:
        errors = _standard_errors(statistic, features, weights)
        varied = usable & (errors > _EQUAL)
        # Where nearly all patients agree, many resamples vary in nothing and have no t.
        if varied.mean() >= _USABLE_SHARE:
            own_error = _standard_errors(statistic, features, np.ones((1, patients)))[0]
            t = (values[varied] - point) / errors[varied]
            method, limits = "bootstrap-t", point - _quantiles(t)[::-1] * own_error
    low, high = np.clip(limits, *bounds)
    return Estimate(point, float(low), float(high), method, patients)


def estimate_rate(events: Floats, trials: Floats) -> Estimate:
    """sum(events) / sum(trials) over patients, both (P,), with a 95 % Wilson interval.

    The number of trials is divided by the design effect: how much more patients differ than chance alone
    explains, at least 1. A percentile bootstrap of rare events is too narrow (simulated at a rate of 2 % and
    22 patients: it covers 81 %, this one 89 %), and no event at all would give it no width.

    Source: Wilson, JASA 22 (1927), the score interval; Korn and Graubard, Survey Methodology 24 (1998), the
    effective sample size.
    """
    rate = ratio_of_totals(events, trials)
    features = rate.features[trials > 0]
    patients = len(features)
    point = rate.point()
    if math.isnan(point) or patients < MINIMUM_PATIENTS:
        reason = "undefined" if math.isnan(point) else f"fewer than {MINIMUM_PATIENTS} patients"
        return Estimate(point, math.nan, math.nan, f"no interval: {reason}", patients)
    count = float(features[:, 1].sum())
    variance = float(_standard_errors(rate, features, np.ones((1, patients)))[0] ** 2)
    by_chance = point * (1 - point) / count
    effective = count / max(1.0, variance / by_chance) if by_chance > 0 else count
    square = _NORMAL_QUANTILE**2 / effective
    middle = (point + square / 2) / (1 + square)
    half = math.sqrt(square * point * (1 - point) + square**2 / 4) / (1 + square)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Estimate(point, min(low, point), max(high, point), "Wilson with design effect", patients)


@functools.lru_cache(maxsize=8)
def _weights(patients: int, resamples: int, seed: int) -> Floats:
    """(R, P): how often each patient is drawn in each resample."""
    draws = np.random.default_rng(seed).integers(patients, size=(resamples, patients))
    flat = draws + patients * np.arange(resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=resamples * patients)
    return counts.reshape(resamples, patients).astype(np.float64)


def _standard_errors(statistic: Statistic, features: Floats, weights: Floats) -> Floats:
    """Delta-method standard error of each resample, (R,); NaN for a figure that is not smooth."""
    if statistic.gradient is None:
        return np.full(len(weights), np.nan)
    patients = len(features)
    influence = statistic.gradient(weights @ features) @ features.T
    return np.sqrt(patients / (patients - 1) * (weights * influence**2).sum(axis=1))


def _quantiles(values: Floats) -> Floats:
    tail = (1 - CONFIDENCE) / 2
    return np.quantile(values, [tail, 1 - tail])


def _divide(above: Floats, below: Floats) -> Floats:
    result: Floats = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below != 0)
    return result


def _paired(
    first: Statistic,
    second: Statistic,
    value: Callable[[Floats], Floats],
    gradient: Callable[[Floats], Floats],
) -> Statistic:
    smooth = first.gradient is not None and second.gradient is not None
    return Statistic(np.concatenate([first.features, second.features], axis=1), value, gradient if smooth else None)
