"""Numbers that depend on no library's random generator. Source: the hash of the golden vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK = np.uint64(0xFFFFFFFF)


def uniform(stream: int, count: int) -> NDArray[np.float64]:
    """U(stream, 0 .. count - 1) in [0, 1)."""
    h = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + np.uint64((stream + 1) * 2246822519)) & _MASK
    h = ((h ^ (h >> np.uint64(15))) * np.uint64(739982445)) & _MASK
    h = ((h ^ (h >> np.uint64(12))) * np.uint64(695872825)) & _MASK
    h ^= h >> np.uint64(15)
    return h.astype(np.float64) / 2**32


def signed(stream: int, count: int) -> NDArray[np.float64]:
    """V(stream, 0 .. count - 1) in [-1, 1)."""
    return 2 * uniform(stream, count) - 1
