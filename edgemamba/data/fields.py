"""Random numbers and smooth random functions that are the same, bit by bit, on every platform.

Random numbers are the raw stream of PCG64, which numpy guarantees never to change (unlike the distributions
built on it). Arithmetic is elementwise with correctly rounded operations (+, -, *, /, sqrt): no libm, no
reduction, whose last bit depends on the processor.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]


class Stream:
    """Random numbers for one key of non-negative integers."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def uniform(self, low: float, high: float) -> float:
        """One number in [low, high)."""
        return low + (high - low) * float(int(self._bits.random_raw()) >> 11) * 2.0**-53

    def symmetric(self, *shape: int) -> Float:
        """Uniform in [-1, 1)."""
        raw = np.asarray(self._bits.random_raw(math.prod(shape))) >> np.uint64(40)
        return (raw.astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)).reshape(shape)

    def bell(self, *shape: int) -> Float:
        """Mean 0 and variance 1, nearly normal: each value the sum of four 16-bit uniform numbers."""
        raw = np.asarray(self._bits.random_raw(math.prod(shape))).astype("<u8")
        total = np.full(raw.shape, -2.0 * 65535.0, np.float32)
        for quarter in raw.view("<u2").reshape(4, -1):
            total += quarter
        return (total * np.float32(math.sqrt(3.0) / 65536.0)).reshape(shape)


class Field:
    """A smooth random function on [-1, 1]^3, about unit size: a cubic B-spline over a random grid."""

    def __init__(self, stream: Stream, depth: int, cells: int) -> None:
        self._grid = stream.symmetric(depth + 3, cells + 3, cells + 3) * np.float32(3.0)

    def plane(self, height: float, size: int) -> Float:
        """The field at ``height`` over pixel centres, (size, size)."""
        flat = _spline(self._grid, np.array([height], np.float32))[0]
        rows = _spline(flat, centers(size))
        return np.ascontiguousarray(_spline(np.ascontiguousarray(rows.T), centers(size)).T)


def centers(size: int) -> Float:
    """Pixel centres on [-1, 1]."""
    return (np.arange(size, dtype=np.float32) * np.float32(2.0) + np.float32(1.0 - size)) / np.float32(size)


def step(value: Float, width: float) -> Float:
    """0 where ``value`` < -width/2, 1 where > width/2, smooth between."""
    t = np.clip(value * np.float32(1.0 / width) + np.float32(0.5), np.float32(0.0), np.float32(1.0))
    return t * t * (np.float32(3.0) - np.float32(2.0) * t)


def _spline(values: Float, at: Float) -> Float:
    """Interpolate ``values`` (n, ...) along the first axis, whose inner knots span [-1, 1]."""
    place = (at + np.float32(1.0)) * np.float32(0.5 * (len(values) - 3))
    first = np.clip(place.astype(np.int64), 0, len(values) - 4)
    t = place - first.astype(np.float32)
    s = np.float32(1.0) - t
    three, four, six = np.float32(3.0), np.float32(4.0), np.float32(6.0)
    weights = (s * s * s, (three * t - six) * t * t + four, (three * s - six) * s * s + four, t * t * t)
    total = np.zeros((len(at), *values.shape[1:]), np.float32)
    for knot, weight in enumerate(weights):
        total += values[first + knot] * (weight / six).reshape(-1, *[1] * (values.ndim - 1))
    return total
