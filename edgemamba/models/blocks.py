"""Layers that several networks share, in forms that export well."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemamba.ssm import FormModule


class GroupNorm4(nn.GroupNorm, FormModule):
    """Group normalisation in four groups."""

    def __init__(self, channels: int) -> None:
        super().__init__(4, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, c, H, W)."""
        if self.form != "litert":
            return super().forward(x)
        batch, channels, height, width = (int(n) for n in x.shape)
        grouped = x.reshape(batch, self.num_groups, -1)
        centred = grouped - grouped.mean(2, keepdim=True)
        scale = torch.rsqrt((centred * centred).mean(2, keepdim=True) + self.eps)
        normal = (centred * scale).reshape(batch, channels, height, width)
        return normal * self.weight[None, :, None, None] + self.bias[None, :, None, None]
