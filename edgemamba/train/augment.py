"""Augmentation of a whole batch on its own device, as tensor code without a single branch on data.

The same code runs on CPU and CUDA and can be captured in a CUDA graph: nothing waits for a value, every slice
is computed and a 0/1 factor per slice says what it keeps. Image and mask travel as one tensor and are
resampled once.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from edgemamba.train.recipes import Augmentation

_CONTROL_POINTS = 9


def pack(images: np.ndarray, masks: np.ndarray) -> Tensor:
    """Put images and masks together for ``Augmenter``.

    Args:
        images: uint8 (N, 3, H, W).
        masks: uint8 (N, H, W) in {0, 1}.

    Returns:
        uint8 (N, 4, H, W), the mask as 0 or 255 in the last channel.
    """
    return torch.from_numpy(np.concatenate([images, masks[:, None] * np.uint8(255)], axis=1))


def unpack(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Network input float32 (B, 3, H, W) in [0, 1] and target (B, 1, H, W) in {0, 1} of a packed batch."""
    scaled = packed.float().mul_(1 / 255)
    return scaled[:, :3], scaled[:, 3:]


class Augmenter:
    """Random changes of packed batches of one size.

    Args:
        settings: strengths and probabilities.
        size: height and width, pixels.
        generator: source of every random number; its device is where batches live.
    """

    def __init__(self, settings: Augmentation, size: tuple[int, int], generator: Generator) -> None:
        self.settings = settings
        self.generator = generator
        self.device = generator.device
        height, width = size
        y = (torch.arange(height, device=self.device) * 2 + 1) / height - 1
        x = (torch.arange(width, device=self.device) * 2 + 1) / width - 1
        ones = torch.ones(height, width, device=self.device)
        self.base = torch.stack([x.expand(height, width), y[:, None].expand(height, width), ones])
        self.rows = _spline(height).to(self.device)
        self.columns = _spline(width).to(self.device)

    def __call__(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """Augment one batch.

        Args:
            packed: uint8 (B, 4, H, W), see ``pack``.

        Returns:
            input float32 (B, 3, H, W), about [0, 1], and target float32 (B, 1, H, W) in {0, 1}.
        """
        count = packed.shape[0]
        warped = F.grid_sample(
            self._drop_channels(packed).float(),
            self._grid(count),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        target = (warped[:, 3:] > 127.5).float()
        return self._holes(self._blur(self._intensity(warped[:, :3] * (1 / 255)))), target

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def _chosen(self, count: int, probability: float) -> Tensor:
        return (self._uniform(count) < probability).float()

    def _drop_channels(self, packed: Tensor) -> Tensor:
        draw = self._uniform(packed.shape[0], 1, 1)
        half = self.settings.channel_drop / 2
        middle = packed[:, 1]
        first = torch.where(draw < half, middle, packed[:, 0])
        last = torch.where(draw > 1 - half, middle, packed[:, 2])
        return torch.stack([first, middle, last, packed[:, 3]], 1)

    def _grid(self, count: int) -> Tensor:
        """Where each output pixel comes from, (B, H, W, 2) in [-1, 1] coordinates."""
        s = self.settings
        affine = self._chosen(count, s.affine)
        angle = affine * (self._uniform(count) * 2 - 1) * math.radians(s.rotation_degrees)
        zoom = torch.exp(-affine * (self._uniform(count) * 2 - 1) * math.log(s.scale))
        shift = affine * (self._uniform(2, count) * 2 - 1) * (2 * s.shift)
        flip = 1 - 2 * (self._uniform(2, count) < s.flip).float()
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        # Pixels are square, the coordinates of a wide image are not: a turn goes through pixel units.
        height, width = self.base.shape[1:]
        across, down = height / width, width / height
        slant = -sin
        if s.shear:
            slant = affine * (self._uniform(count) * 2 - 1) * s.shear * cos - sin
        matrix = torch.stack(
            [
                flip[0] * cos,
                flip[0] * slant * across,
                shift[0],
                flip[1] * sin * down,
                flip[1] * cos,
                shift[1],
            ],
            -1,
        ).view(count, 2, 3)
        grid = (matrix @ self.base.flatten(1)).view(count, 2, height, width)
        amount = self._chosen(count, s.elastic) * s.elastic_std
        control = self._normal(count, 2, _CONTROL_POINTS, _CONTROL_POINTS) * amount[:, None, None, None]
        return (grid + self.rows @ control @ self.columns.T).permute(0, 2, 3, 1)

    def _intensity(self, image: Tensor) -> Tensor:
        s = self.settings
        count, channels, height, width = image.shape
        chosen = self._chosen(count, s.intensity).view(count, 1, 1, 1)
        gamma = torch.exp(chosen * self._normal(count, 1, 1, 1) * s.gamma_std)
        gain = torch.exp(chosen * self._normal(count, channels, 1, 1) * s.gain_std)
        bias = chosen * self._normal(count, 1, 1, 1) * s.bias_std
        # One field of noise serves the few slices of a batch that get any: an eighth of the random numbers.
        amount = self._chosen(count, s.noise).view(count, 1, 1, 1) * s.noise_std
        field = self._normal(1, channels, height, width)
        if s.bias_field:
            strength = self._chosen(count, s.bias_field).view(count, 1, 1, 1) * s.bias_field_std
            points = self._normal(count, 1, _CONTROL_POINTS, _CONTROL_POINTS) * strength
            gain = gain * torch.exp(self.rows @ points @ self.columns.T)
        return torch.addcmul(torch.addcmul(bias, image.pow(gamma), gain), field, amount)

    def _blur(self, image: Tensor) -> Tensor:
        if not self.settings.blur:
            return image
        count = image.shape[0]
        amount = self._chosen(count, self.settings.blur) * (self._uniform(count) * 1.7 - 0.7)
        smooth = F.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
        return torch.lerp(image, smooth, amount.view(count, 1, 1, 1))

    def _holes(self, image: Tensor) -> Tensor:
        if not self.settings.holes:
            return image
        count = image.shape[0]
        chosen = self._chosen(count, self.settings.holes)
        for _ in range(2):
            centre = self._uniform(2, count, 1) * 2 - 1
            half = self._uniform(2, count, 1) * self.settings.hole_size * chosen[:, None]
            row = ((self.base[1, :, 0] - centre[0]).abs() < half[0]).float()
            column = ((self.base[0, 0] - centre[1]).abs() < half[1]).float()
            image = image * (1 - row[:, None, :, None] * column[:, None, None, :])
        return image


def _spline(length: int) -> Tensor:
    """Matrix (length, control points) of a cubic B-spline, scaled to keep the variance of its points."""
    position = torch.linspace(1, _CONTROL_POINTS - 2, length, dtype=torch.float64)[:, None]
    distance = (position - torch.arange(_CONTROL_POINTS)).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    matrix = torch.where(distance < 1, near, far)
    return (matrix / matrix.square().sum(1).mean().sqrt()).float()
