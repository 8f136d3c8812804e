"""The frame that UltraLight VM-UNet and UltraLBM-UNet share: stages, skips, mirrored stages, initialisation.

Source: Wu et al., "UltraLight VM-UNet" (2024); names and initialisation of the published code.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.base import SegmentationModel
from edgemamba.models.blocks import GroupNorm4, Upsample2
from edgemamba.ssm import Mamba


class MirroredNet(SegmentationModel):
    """``encoder1`` to ``encoderN``, ``decoder1`` to ``decoderN-1``, group norms, skips that are added.

    A subclass adds its stages under these names, then calls ``add_norms_and_head``.

    Args:
        channels: per encoder stage, fine to coarse.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = list(channels)
        self.depth = len(channels)
        self.feature_channels = self.channels[-2::-1]

    def add_norms_and_head(self, *, keep_mamba: bool) -> None:
        """Add what follows the stages, in the published order, and initialise everything."""
        for i, width in enumerate(self.channels[:-1], start=1):
            self.add_module(f"ebn{i}", GroupNorm4(width))
        for i, width in enumerate(self.feature_channels, start=1):
            self.add_module(f"dbn{i}", GroupNorm4(width))
        self.final = nn.Conv2d(self.channels[0], 1, 1)
        self.up2 = Upsample2()
        initialise(self, keep_mamba=keep_mamba)

    @abc.abstractmethod
    def skips(self, maps: list[Tensor]) -> list[Tensor]:
        """What the decoder adds, of the encoder's maps; both fine to coarse, same shapes."""

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 1, H, W) and the decoder maps, coarse to fine."""
        encoded = []
        for i in range(1, self.depth):
            x = F.gelu(self.get_submodule(f"ebn{i}")(self.get_submodule(f"encoder{i}")(x), pool=True))
            encoded.append(x)
        x = F.gelu(self.get_submodule(f"encoder{self.depth}")(x))
        maps = []
        for i, skip in enumerate(reversed(self.skips(encoded)), start=1):
            x = self.get_submodule(f"dbn{i}")(self.get_submodule(f"decoder{i}")(x))
            x = F.gelu(x if i == 1 else self.up2(x)) + skip
            maps.append(x)
        return self.up2(self.final(x)), maps


@torch.no_grad()
def initialise(model: nn.Module, *, keep_mamba: bool) -> None:
    """The published initialisation; with ``keep_mamba`` it leaves the Mamba blocks alone.

    Source: ``_init_weights`` of the published code, applied to every sub-module.
    """
    for module in _modules(model, keep_mamba=keep_mamba):
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):
            nn.init.normal_(module.weight, std=math.sqrt(2 / (module.kernel_size[0] * module.out_channels)))
        elif isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _modules(module: nn.Module, *, keep_mamba: bool) -> list[nn.Module]:
    if keep_mamba and isinstance(module, Mamba):
        return []
    return [module, *(part for child in module.children() for part in _modules(child, keep_mamba=keep_mamba))]
