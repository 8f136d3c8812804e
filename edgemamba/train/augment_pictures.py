"""Augmentation of pictures with a class, of a whole batch on its own device, without a branch on data (as ``augment``).

Mixing: Zhang et al., "mixup" (2018), and Yun et al., "CutMix" (2019), both with a share drawn uniformly (Beta(1, 1));
cutout: DeVries and Taylor (2017).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from edgemamba.train.recipes import PictureAugmentation


class PictureAugmenter:
    """Random changes of batches of pictures of one size.

    Args:
        settings: strengths and probabilities.
        size: height and width, pixels.
        classes: K.
        generator: source of every random number; its device is where batches live.
    """

    def __init__(
        self, settings: PictureAugmentation, size: tuple[int, int], classes: int, generator: Generator
    ) -> None:
        self.settings = settings
        self.generator = generator
        self.device = generator.device
        self.classes = torch.arange(classes, device=self.device)
        self.height, self.width = size
        # Pixel centres, -1 to 1.
        self.y = (torch.arange(self.height, device=self.device) * 2 + 1) / self.height - 1
        self.x = (torch.arange(self.width, device=self.device) * 2 + 1) / self.width - 1

    def __call__(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Augment one batch.

        Args:
            images: uint8 (B, 3, H, W).
            classes: int64 (B).

        Returns:
            input float32 (B, 3, H, W), about [0, 1], and target float32 (B, K), sum 1.
        """
        moved = F.grid_sample(images.float(), self._grid(len(images)), padding_mode="zeros", align_corners=False)
        x = self._holes(self._colours(moved * (1 / 255)))
        return self._mix(x, (classes[:, None] == self.classes).float())

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device)

    def _grid(self, count: int) -> Tensor:
        """Where each output pixel comes from, (B, H, W, 2): mirrored, moved by whole pixels, turned and scaled."""
        s = self.settings
        steps = torch.floor(self._uniform(2, count) * (2 * s.shift + 1)) - s.shift
        across, down = steps[0] * (2 / self.width), steps[1] * (2 / self.height)
        flip = 1 - 2 * (self._uniform(count) < s.flip).float()
        angle = (self._uniform(count) * 2 - 1) * math.radians(s.rotation_degrees)
        zoom = torch.exp((self._uniform(count) * 2 - 1) * math.log(s.scale))
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        # Pixels are square, the coordinates of a wide picture are not.
        tall, wide = self.height / self.width, self.width / self.height
        rows = torch.stack([flip * cos, flip * -sin * tall, across, sin * wide, cos, down], -1)
        return F.affine_grid(rows.view(count, 2, 3), [count, 3, self.height, self.width], align_corners=False)

    def _colours(self, x: Tensor) -> Tensor:
        """Brightness, contrast and saturation."""
        jitter = self.settings.jitter
        if not jitter:
            return x
        bright, contrast, colour = (1 + (self._uniform(3, len(x), 1, 1, 1) * 2 - 1) * jitter).unbind(0)
        x = torch.lerp(x.mean((1, 2, 3), keepdim=True), x * bright, contrast)
        return torch.lerp(x.mean(1, keepdim=True), x, colour)

    def _box(self, half_height: Tensor, half_width: Tensor) -> Tensor:
        """1 inside a rectangle at a random place, (B, 1, H, W); half sides (B) as shares of the half picture."""
        count = len(half_height)
        centre = self._uniform(2, count, 1) * 2 - 1
        row = ((self.y - centre[0]).abs() < half_height[:, None]).float()
        column = ((self.x - centre[1]).abs() < half_width[:, None]).float()
        return row[:, None, :, None] * column[:, None, None, :]

    def _holes(self, x: Tensor) -> Tensor:
        side = self.settings.cutout
        if not side:
            return x
        ones = torch.ones(len(x), device=self.device)
        return x * (1 - self._box(ones * side / self.height, ones * side / self.width))

    def _mix(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mix each picture with the one before it in the batch, whose order is random: as a whole, or a rectangle."""
        if not self.settings.mix:
            return x, target
        count = len(x)
        mixed = self._uniform(count) < self.settings.mix
        whole = (self._uniform(count) < 0.5).float()
        other = self._uniform(count) * mixed
        box = self._box(torch.sqrt(other), torch.sqrt(other))
        area = box.mean((1, 2, 3))
        share = torch.lerp(area, other, whole)
        where = torch.lerp(box, other.view(-1, 1, 1, 1).expand_as(box), whole.view(-1, 1, 1, 1))
        return torch.lerp(x, x.roll(1, 0), where), torch.lerp(target, target.roll(1, 0), share[:, None])
