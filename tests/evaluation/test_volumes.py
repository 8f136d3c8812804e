"""Postprocessing of volumes against plain definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemamba.evaluation.volumes import Postprocessing, components, flip_averaged, remove_small, smooth


def flooded(mask: np.ndarray) -> np.ndarray:
    """Labels by flood filling, voxel by voxel."""
    labels = np.zeros(mask.shape, np.int64)
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
    count = 0
    for start in map(tuple, np.argwhere(mask)):
        if labels[start]:
            continue
        count += 1
        waiting = [start]
        labels[start] = count
        while waiting:
            here = waiting.pop()
            for step in steps:
                near = tuple(a + b for a, b in zip(here, step, strict=True))
                inside = all(0 <= a < n for a, n in zip(near, mask.shape, strict=True))
                if inside and mask[near] and not labels[near]:
                    labels[near] = count
                    waiting.append(near)
    return labels


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 9)), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_components_are_those_of_flood_filling(shape: tuple[int, int, int], share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random(shape) < share
    found, expected = components(mask), flooded(mask)
    pairs = {(int(a), int(b)) for a, b in zip(found.ravel(), expected.ravel(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert set(np.unique(found)) == set(np.unique(expected))


def test_small_components_go() -> None:
    mask = np.zeros((3, 8, 8), bool)
    mask[0, :4, :4] = True  # 16 voxels
    mask[2, 6, 5:8] = True  # 3
    mask[1, 7, 0] = True  # 1
    kept = remove_small(mask, 0.1)
    assert kept.sum() == 19
    assert not kept[1].any()
    assert (remove_small(mask, 1.0) == (mask & (np.arange(3) == 0)[:, None, None])).all()
    assert not remove_small(np.zeros_like(mask), 0.5).any()


def test_smoothing_keeps_a_constant_and_mixes_neighbours() -> None:
    constant = np.full((4, 2, 2), 0.3, np.float32)
    np.testing.assert_allclose(smooth(constant, 0.2), constant, rtol=1e-6)
    single = np.zeros((5, 1, 1), np.float32)
    single[2] = 1
    np.testing.assert_allclose(smooth(single, 0.25)[:, 0, 0], [0, 0.25, 0.5, 0.25, 0])
    assert Postprocessing(neighbours=0.25, threshold=0.25).mask(single)[:, 0, 0].tolist() == [0, 1, 1, 1, 0]


def test_flips_are_turned_back() -> None:
    images = np.random.default_rng(0).random((2, 3, 4, 6), np.float32)
    np.testing.assert_allclose(flip_averaged(lambda x: x[:, 1])(images), images[:, 1], rtol=1e-6)
    corner = flip_averaged(lambda x: (np.arange(24).reshape(1, 4, 6) == 0) * x[:, 0])(np.ones_like(images))
    assert corner[0, 0, 0] == corner[0, -1, -1] == pytest.approx(0.25)
