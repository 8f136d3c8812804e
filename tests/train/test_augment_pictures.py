"""Augmentation of pictures with a class: each part against plain arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from edgemamba.train.augment_pictures import PictureAugmenter
from edgemamba.train.recipes import PictureAugmentation

NOTHING: dict[str, Any] = {"flip": 0.0, "shift": 0}


def augmenter(seed: int = 0, **settings: Any) -> PictureAugmenter:
    generator = torch.Generator().manual_seed(seed)
    return PictureAugmenter(PictureAugmentation(**NOTHING | settings), (12, 16), 5, generator)


def batch(count: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(1, 256, (count, 3, 12, 16), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % 5


def test_without_strength_nothing_changes() -> None:
    images, classes = batch()
    x, target = augmenter()(images, classes)
    torch.testing.assert_close(x, images / 255, rtol=0, atol=1e-5)
    assert torch.equal(target.argmax(1), classes) and bool((target.sum(1) == 1).all())


def test_mirror_images() -> None:
    images, classes = batch()
    x, _ = augmenter(flip=0.5)(images, classes)
    same = (x - images / 255).abs().amax((1, 2, 3)) < 1e-4
    mirrored = (x - images.flip(3) / 255).abs().amax((1, 2, 3)) < 1e-4
    assert bool((same ^ mirrored).all()) and 15 < int(same.sum()) < 49


def test_moves_are_whole_pixels_and_what_comes_in_is_black() -> None:
    images, classes = batch(200)
    x, _ = augmenter(shift=2)(images, classes)
    padded = torch.nn.functional.pad(images / 255, (2, 2, 2, 2))
    seen = set()
    for image, framed in zip(x, padded, strict=True):
        fits = [
            (dy, dx)
            for dy in range(5)
            for dx in range(5)
            if float((framed[:, dy : dy + 12, dx : dx + 16] - image).abs().max()) < 1e-3
        ]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) == 25


def test_a_hole_is_a_square() -> None:
    x, _ = augmenter(cutout=6)(*batch())
    holes = (x == 0).all(1)
    area = holes.sum((1, 2))
    assert int(area.max()) == 36 and int(area.min()) >= 9
    for hole in holes:
        rows, columns = hole.any(1).nonzero(), hole.any(0).nonzero()
        assert int(hole.sum()) == len(rows) * len(columns)


def test_mixing_mixes_the_target_alike() -> None:
    images = torch.stack([torch.full((3, 12, 16), 255 * (i % 2), dtype=torch.uint8) for i in range(400)])
    classes = torch.arange(400) % 2
    x, target = augmenter(mix=1.0)(images, classes)
    assert torch.allclose(target.sum(1), torch.ones(400), atol=1e-6)
    # White pictures are class 1: the share of white is the share of the class, whichever way they are mixed.
    torch.testing.assert_close(x.mean((1, 2, 3)), target[:, 1], rtol=0, atol=1e-4)
    flat = x.amax((1, 2, 3)) - x.amin((1, 2, 3)) < 1e-6
    assert 150 < int(flat.sum()) < 260
    assert float(target.amax(1).mean()) == pytest.approx(0.75, abs=0.06)


def test_some_are_left_alone() -> None:
    x, target = augmenter(mix=0.5)(*batch(400))
    pure = target.amax(1) == 1
    assert 150 < int(pure.sum()) < 280
    torch.testing.assert_close(x[pure], (batch(400)[0] / 255)[pure], rtol=0, atol=1e-5)


def test_colours_turns_and_scales_stay_in_reach_and_the_seed_decides() -> None:
    settings = {"jitter": 0.2, "rotation_degrees": 10.0, "scale": 1.2, "flip": 0.5, "shift": 2, "mix": 0.5, "cutout": 4}
    one, two, other = (augmenter(seed, **settings)(*batch()) for seed in (1, 1, 2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])
    assert bool(torch.isfinite(one[0]).all()) and float(one[0].min()) > -0.5 and float(one[0].max()) < 1.8
