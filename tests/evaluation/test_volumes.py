"""Postprocessing of volumes against plain definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemamba.console import Console
from edgemamba.data import open_dataset, split_dataset
from edgemamba.errors import UsageError
from edgemamba.evaluation.evaluate import evaluate
from edgemamba.evaluation.volumes import (
    Postprocessing,
    components,
    evaluate_volumes,
    flip_averaged,
    remove_small,
    smooth,
)


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
    assert Postprocessing(neighbours=0.25).masks(single, 0.25, (1, 1))[:, 0, 0].tolist() == [0, 1, 1, 1, 0]


def test_flips_are_turned_back() -> None:
    images = np.random.default_rng(0).random((2, 3, 4, 6), np.float32)
    np.testing.assert_allclose(flip_averaged(lambda x: x[:, 1])(images), images[:, 1], rtol=1e-6)
    corner = flip_averaged(lambda x: (np.arange(24).reshape(1, 4, 6) == 0) * x[:, 0])(np.ones_like(images))
    assert corner[0, 0, 0] == corner[0, -1, -1] == pytest.approx(0.25)


def test_volumes_are_scored_as_slices_are() -> None:
    """Without processing the counts are those of ``evaluate``; small false alarms go with it."""
    dataset = open_dataset("phantoms", patients=5, slices=6, size=48)
    chosen = split_dataset(dataset, "patient").test
    truth = {index: dataset.read(index)[1] for index in chosen}
    order = iter([*chosen, *chosen, *chosen])

    def predict(images: np.ndarray) -> np.ndarray:
        found = np.stack([truth[next(order)] for _ in images]).astype(np.float32)
        found[:, 0, :2] = 1  # a false alarm of two pixels in every slice
        return found

    console = Console(quiet=True)
    plain = evaluate(predict, dataset, chosen, (48, 48), console, split="patient")
    same = evaluate_volumes(predict, dataset, chosen, (48, 48), console, 0.5, Postprocessing(), split="patient")
    assert [one.row() for one in same.slices] == [one.row() for one in plain.slices]
    kept = Postprocessing(component_share=0.5)
    cleaned = evaluate_volumes(predict, dataset, chosen, (48, 48), console, 0.5, kept, split="patient")
    assert cleaned.value("volume") > plain.value("volume")
    assert cleaned.document()["postprocessing"]["component_share"] == 0.5


@pytest.mark.parametrize("wrong", [{"neighbours": 0.6}, {"neighbours": -0.1}, {"component_share": 2.0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Postprocessing(**wrong)
