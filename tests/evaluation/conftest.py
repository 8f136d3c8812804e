"""Seeded masks and a small data set of pictures of different sizes, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemamba.data.base import Dataset, Sample

UInt8 = NDArray[np.uint8]


def _random_pairs(seed: int, slices: int, patients: int, size: int = 12) -> tuple[list[str], UInt8, UInt8]:
    """Patients (n), predicted and true masks (n, size, size); a third of each kind is empty."""
    rng = np.random.default_rng(seed)
    true = (rng.random((slices, size, size)) < 0.2).astype(np.uint8)
    predicted = np.where(rng.random(true.shape) < 0.25, 1 - true, true).astype(np.uint8)
    true[rng.random(slices) < 0.35] = 0
    predicted[rng.random(slices) < 0.35] = 0
    names = [f"patient-{rng.integers(patients):02d}" for _ in range(slices)]
    return names, predicted, true


@pytest.fixture
def random_pairs() -> Callable[..., tuple[list[str], UInt8, UInt8]]:
    """Function of a seed, a number of slices and of patients."""
    return _random_pairs


class Squares(Dataset):
    """Pictures that hold their truth in red and two predictions in green and blue, in steps of a square.

    Every picture is ``4 * k`` pixels high and ``4 * (k + 1)`` wide with k from 2 to 4.
    """

    name = "squares"
    root = None

    def __init__(self, slices: int = 30, patients: int = 6, seed: int = 3) -> None:
        self.options = {}
        self._seed = seed
        self.samples = tuple(
            Sample(f"p{index % patients}_{index // patients + 1}", f"p{index % patients}", index // patients + 1)
            for index in range(slices)
        )

    def planes(self, index: int) -> UInt8:
        """Truth, first and second prediction, uint8 (H, W, 3) of 0 and 1."""
        rng = np.random.default_rng([self._seed, index])
        rows = 2 + index % 3
        cells = (rng.random((rows, rows + 1, 3)) < (0.5, 0.4, 0.4)).astype(np.uint8)
        if index % 5 == 0:
            cells[:, :, 0] = 0
        if index % 7 == 0:
            cells[:, :, 1] = 0
        return cells.repeat(4, axis=0).repeat(4, axis=1)

    def read(self, index: int) -> tuple[UInt8, UInt8]:
        planes = self.planes(index)
        return planes * np.uint8(255), planes[:, :, 0].copy()

    def fingerprint(self) -> str:
        return "0" * 64


class Plane:
    """A predictor that answers with one channel of its input and counts the pictures it has seen."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.seen = 0

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen += len(images)
        return images[:, self.channel].copy()


@pytest.fixture
def squares() -> Squares:
    """30 pictures of six patients."""
    return Squares()


@pytest.fixture
def plane() -> type[Plane]:
    """Makes a predictor of a channel: 0 gives the truth."""
    return Plane
