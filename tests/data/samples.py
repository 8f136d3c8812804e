"""Seeded pixels for small files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]


def picture(seed: int, height: int = 20, width: int = 24) -> UInt8:
    """Random RGB, (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def blob(seed: int, height: int = 20, width: int = 24) -> UInt8:
    """A mask of 0 and 1 with a rectangle; empty for every third seed."""
    mask = np.zeros((height, width), np.uint8)
    if seed % 3:
        mask[2 : 5 + seed % 7, 3:11] = 1
    return mask
