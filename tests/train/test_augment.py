"""Augmentation: image and mask stay together, strengths are what the settings say, seeds decide."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from edgemamba.train.augment import Augmenter, pack, unpack
from edgemamba.train.recipes import Augmentation

OFF = Augmentation(flip=0, affine=0, elastic=0, intensity=0, noise=0, channel_drop=0)
GEOMETRY = dataclasses.replace(Augmentation(), intensity=0, noise=0, channel_drop=0)


def run(settings: Augmentation, packed: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return Augmenter(settings, tuple(packed.shape[-2:]), generator)(packed)


def disc(batch: int, height: int, width: int, radius: float) -> Tensor:
    """A filled circle in the middle, in the image and in the mask alike."""
    y, x = np.ogrid[:height, :width]
    inside = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 <= radius**2
    mask = np.broadcast_to(inside, (batch, height, width)).astype(np.uint8)
    return pack(np.repeat(mask[:, None] * np.uint8(255), 3, axis=1), mask)


@pytest.fixture
def noise() -> Tensor:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 3, 32, 48), dtype=np.uint8)
    return pack(images, (images[:, 1] > 128).astype(np.uint8))


def test_nothing_chosen_changes_nothing(noise: Tensor) -> None:
    image, target = run(OFF, noise)
    plain_image, plain_target = unpack(noise)
    torch.testing.assert_close(image, plain_image, rtol=0, atol=2e-5)
    assert torch.equal(target, plain_target)
    assert float(plain_image.max()) == 1.0


def test_certain_flips_turn_the_picture_round(noise: Tensor) -> None:
    image, target = run(dataclasses.replace(OFF, flip=1.0), noise)
    plain_image, plain_target = unpack(noise)
    torch.testing.assert_close(image, plain_image.flip(2, 3), rtol=0, atol=2e-5)
    assert torch.equal(target, plain_target.flip(2, 3))


def test_mask_follows_the_image() -> None:
    image, target = run(GEOMETRY, disc(16, 64, 96, 17.5))
    moved = (image[:, 1:2] > 0.5).float()
    assert torch.equal(moved, target)
    assert not torch.equal(target, disc(16, 64, 96, 17.5)[:, 3:].float() / 255)


def test_rotation_keeps_shapes_of_a_picture_that_is_not_square() -> None:
    settings = dataclasses.replace(OFF, affine=1.0, scale=1.0, shift=0.0, rotation_degrees=180.0)
    packed = disc(8, 48, 96, 15.5)
    _, target = run(settings, packed)
    agreement = (target == packed[:, 3:].float() / 255).float().mean((1, 2, 3))
    assert float(agreement.min()) > 0.99


def test_scale_and_shift_stay_within_their_limits() -> None:
    packed = disc(200, 64, 64, 12.0)
    _, scaled = run(dataclasses.replace(OFF, affine=1.0, scale=1.25, shift=0.0, rotation_degrees=0.0), packed)
    area = scaled.sum((1, 2, 3)) / (packed[:, 3] > 0).sum((1, 2))
    assert 0.6 < float(area.min()) < 0.7
    assert 1.45 < float(area.max()) < 1.6
    _, shifted = run(dataclasses.replace(OFF, affine=1.0, scale=1.0, shift=0.1, rotation_degrees=0.0), packed)
    rows = torch.arange(64.0)[None, None, :, None]
    centre = (shifted * rows).sum((1, 2, 3)) / shifted.sum((1, 2, 3)) - 31.5
    assert 5.0 < float(centre.abs().max()) <= 6.5
    assert float(shifted.sum((1, 2, 3)).std()) < 8


def test_elastic_displaces_by_its_standard_deviation() -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8), (24, 3, 64, 256)).copy()
    image, _ = run(dataclasses.replace(OFF, elastic=1.0, elastic_std=0.03), pack(ramp, ramp[:, 0] * 0))
    pixels = (image * 255 - torch.arange(256.0))[:, 0, 10:-10, 30:-30]
    assert 0.75 * 3.84 < float(pixels.std()) < 1.25 * 3.84
    jump = (pixels[..., 1:] - pixels[..., :-1]).abs().max()
    assert float(jump) < 1, "neighbours must not change places"


def test_a_missing_sequence_is_replaced_by_the_middle_channel(noise: Tensor) -> None:
    image, _ = run(dataclasses.replace(OFF, channel_drop=1.0), noise)
    first = (image[:, 0] == image[:, 1]).flatten(1).all(1)
    last = (image[:, 2] == image[:, 1]).flatten(1).all(1)
    assert bool((first ^ last).all())


def test_noise_and_intensity_have_the_strength_they_claim() -> None:
    grey = pack(np.full((64, 3, 32, 32), 128, np.uint8), np.zeros((64, 32, 32), np.uint8))
    noisy, _ = run(dataclasses.replace(OFF, noise=1.0, noise_std=0.03), grey)
    assert float((noisy - 128 / 255).std()) == pytest.approx(0.03, rel=0.1)
    plain = dataclasses.replace(OFF, intensity=1.0, gamma_std=0.0, bias_std=0.0, gain_std=0.15)
    gained, _ = run(plain, grey)
    levels = (gained[:, :, 0, 0] / (128 / 255)).log()
    assert float(levels.std()) == pytest.approx(0.15, rel=0.2)


def test_probability_is_per_slice() -> None:
    packed = disc(400, 16, 16, 5.0)
    packed[:, :3, :, :8] //= 2
    image, _ = run(dataclasses.replace(OFF, intensity=0.5), packed)
    plain, _ = run(OFF, packed)
    changed = (image - plain).abs().amax((1, 2, 3)) > 1e-4
    assert 160 < int(changed.sum()) < 240


def test_numbers_follow_from_the_seed(noise: Tensor) -> None:
    one, again, other = (run(Augmentation(), noise, seed) for seed in (3, 3, 4))
    assert torch.equal(one[0], again[0])
    assert torch.equal(one[1], again[1])
    assert not torch.equal(one[0], other[0])
    assert bool(torch.isfinite(one[0]).all())
    assert set(one[1].unique().tolist()) <= {0.0, 1.0}


def test_shear_slants_a_square_and_keeps_its_area() -> None:
    mask = np.zeros((200, 64, 64), np.uint8)
    mask[:, 24:40, 24:40] = 1
    packed = pack(np.repeat(mask[:, None] * np.uint8(255), 3, axis=1), mask)
    settings = dataclasses.replace(OFF, affine=1.0, scale=1.0, shift=0.0, rotation_degrees=0.0, shear=0.3)
    image, target = run(settings, packed)
    assert torch.equal((image[:, 1:2] > 0.5).float(), target)
    area = target.sum((1, 2, 3))
    assert float((area - 256).abs().max()) <= 20
    # Rows keep their place, columns move by up to 0.3 of the distance from the middle row.
    assert set(target[:, 0].any(2).sum(1).tolist()) == {16}
    widths = target[:, 0].any(1).sum(1)
    assert float(widths.min()) >= 16 and 18 <= float(widths.max()) <= 16 + 0.3 * 16 + 2


def test_field_of_gain_is_smooth() -> None:
    flat = pack(np.full((4, 3, 64, 64), 128, np.uint8), np.zeros((4, 64, 64), np.uint8))
    image, _ = run(dataclasses.replace(OFF, bias_field=1.0), flat)
    assert float(image.std((2, 3)).min()) > 0.01
    steps = torch.maximum(image.diff(dim=2).abs().amax(), image.diff(dim=3).abs().amax())
    assert float(steps) < 0.15 * float(image.mean())
    torch.testing.assert_close(image[:, 0], image[:, 2])


def test_blur_mixes_the_mean_in_or_takes_it_away(noise: Tensor) -> None:
    plain, plain_target = unpack(noise)
    image, target = run(dataclasses.replace(OFF, blur=1.0), noise)
    assert torch.equal(target, plain_target)
    smooth = torch.nn.functional.avg_pool2d(plain, 3, stride=1, padding=1, count_include_pad=False)
    amounts = []
    for one, before, mean in zip(image, plain, smooth, strict=True):
        amount = float(((one - before) * (mean - before)).sum() / (mean - before).square().sum())
        torch.testing.assert_close(one, torch.lerp(before, mean, amount), rtol=0, atol=1e-4)
        amounts.append(amount)
    assert -0.7 <= min(amounts) < 0 < max(amounts) <= 1


def test_holes_are_black_rectangles_under_which_the_mask_stays(noise: Tensor) -> None:
    plain, plain_target = unpack(noise)
    image, target = run(dataclasses.replace(OFF, holes=1.0), noise)
    assert torch.equal(target, plain_target)
    changed = (image - plain).abs() > 1e-4
    assert changed.any((1, 2, 3)).all()
    assert float(image[changed].abs().max()) == 0.0
    assert float(changed.any(1).float().mean((1, 2)).max()) <= 2 * Augmentation().hole_size ** 2 * 1.2
