"""Phantoms: pinned pixels, what the pictures are like, and what makes them worth learning."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from data.samples import UInt8
from edgemamba.data import open_dataset
from edgemamba.data.base import Dataset
from edgemamba.data.fields import Field, Stream, centers, step
from edgemamba.errors import UsageError

PINNED = {
    (0, 128, 0): "775ac879f0e9f0492153b843",
    (0, 128, 5): "09ace429accce05057de7612",
    (0, 128, 200): "fa0be8da59c714300555fe21",
    (0, 256, 23): "83561e2c8c5ff5050164d45f",
    (7, 64, 100): "07c47e50c15dfaa1982d95bb",
    (1099511627776, 96, 50): "c697fc74dbd6647199dbb868",
}


@pytest.fixture(scope="module")
def small() -> tuple[Dataset, UInt8, UInt8]:
    """Sixty patients at 64x64: images (N, 64, 64, 3) and masks (N, 64, 64)."""
    dataset = open_dataset("phantoms", patients=60, slices=8, size=64)
    pairs = [dataset.read(index) for index in range(len(dataset.samples))]
    return dataset, np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


@pytest.mark.parametrize(("seed", "size", "index"), PINNED)
def test_pixels_never_change(seed: int, size: int, index: int) -> None:
    image, mask = open_dataset("phantoms", seed=seed, size=size).read(index)
    assert hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()[:24] == PINNED[seed, size, index]


def test_a_slice_does_not_depend_on_the_rest_of_the_set() -> None:
    few = open_dataset("phantoms", patients=2, slices=16)
    many = open_dataset("phantoms", patients=9, slices=16)
    for index in (20, 3):
        for one, other in zip(few.read(index), many.read(index), strict=True):
            np.testing.assert_array_equal(one, other)


def test_default_set_is_what_the_demo_needs() -> None:
    dataset = open_dataset("phantoms")
    assert dataset.options == {"patients": 24, "slices": 16, "size": 128, "seed": 0}
    assert len({sample.id for sample in dataset.samples}) == 24 * 16
    assert len({sample.patient for sample in dataset.samples}) == 24
    image, mask = dataset.read(5)
    assert (image.dtype, image.shape) == (np.uint8, (128, 128, 3))
    assert (mask.dtype, mask.shape) == (np.uint8, (128, 128))


def test_about_a_third_of_the_slices_has_a_lesion_of_varied_size(small: tuple[Dataset, UInt8, UInt8]) -> None:
    _, _, masks = small
    assert set(np.unique(masks)) == {0, 1}
    areas = masks.sum(axis=(1, 2)) / masks[0].size
    assert 0.28 < (areas > 0).mean() < 0.42
    low, high = np.percentile(areas[areas > 0], [5, 95])
    assert low < 0.003
    assert high > 0.03


def test_lesions_are_bright_in_flair_yet_brightness_does_not_find_them(
    small: tuple[Dataset, UInt8, UInt8],
) -> None:
    _, images, masks = small
    flair = images[:, :, :, 1]
    has = masks.any(axis=(1, 2))
    brain = (flair > 40) & (masks == 0)
    assert np.median(flair[has][masks[has] == 1]) > 1.3 * np.median(flair[has][brain[has]])
    true = masks == 1
    for channel in range(3):
        scores = []
        for threshold in range(10, 250, 10):
            found = images[:, :, :, channel] >= threshold
            scores.append(2 * (found & true).sum() / (found.sum() + true.sum()))
        assert max(scores) < 0.35


def test_seeds_and_patients_differ() -> None:
    first, second = (open_dataset("phantoms", seed=seed, size=32) for seed in (0, 1))
    assert (first.read(8)[0] != second.read(8)[0]).any()
    assert (first.read(8)[0] != first.read(24)[0]).any()
    assert first.fingerprint() != second.fingerprint()
    assert first.fingerprint() == open_dataset("phantoms", seed=0, size=32).fingerprint()


@pytest.mark.parametrize("options", [{"patients": 0}, {"size": 8}, {"seed": -1}, {"slices": 2.0}, {"size": True}])
def test_impossible_options(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))) as caught:
        open_dataset("phantoms", **options)
    assert "whole number from" in caught.value.hint


def test_bell_has_mean_0_and_variance_1() -> None:
    values = Stream(1, 2).bell(400, 500).astype(np.float64)
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1.0) < 0.01
    assert values.shape == (400, 500)


def test_uniform_numbers_fill_their_range() -> None:
    stream = Stream(3)
    values = stream.symmetric(100_000)
    assert values.min() >= -1.0
    assert values.max() < 1.0
    assert abs(values.mean()) < 0.01
    assert all(2.0 <= stream.uniform(2.0, 5.0) < 5.0 for _ in range(100))


def test_field_is_smooth_and_the_same_at_every_resolution() -> None:
    field = Field(Stream(4), 3, 8)
    coarse, fine = field.plane(0.2, 50), field.plane(0.2, 150)
    np.testing.assert_allclose(coarse, fine[1::3, 1::3], atol=1e-5)
    assert np.abs(np.diff(fine, axis=0)).max() < 0.2
    assert np.abs(field.plane(0.2, 50) - field.plane(0.21, 50)).max() < 0.1


def test_centers_and_step() -> None:
    np.testing.assert_allclose(centers(4), [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(step(np.array([-1.0, -0.1, 0.0, 0.1, 1.0], np.float32), 0.2), [0, 0, 0.5, 1, 1])
