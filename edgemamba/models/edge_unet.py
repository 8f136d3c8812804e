"""Edge-UNet: edgemamba's own net of less than 50,000 parameters.

Fine maps get convolutions that are wide in space and cheap in parameters, coarse maps one Mamba that scans its four
channel chunks in four directions. The stem halves the image's sides, so the finest map has a quarter of its pixels.

Sources: Wu et al., "UltraLight VM-UNet" (2024), for the chunks that share one Mamba; Liu et al., "VMamba" (2024), for
the four directions; Liu et al., "A ConvNet for the 2020s" (2022), for the local block; Yang et al., "PlainMamba"
(2024), for one direction a channel group.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.base import SegmentationModel
from edgemamba.models.blocks import GroupNorm4, LayerNorm, Upsample2
from edgemamba.ssm import Mamba

DIRECTIONS = 4
D_STATE = 8


class EdgeUNet(SegmentationModel):
    """Encoder and decoder of local and scan blocks; skips are added.

    Args:
        channels: per level, fine to coarse; the finest has half the image's sides, each further one half of that.
        local: local blocks per level in the encoder.
        local_up: the same in the decoder, without the coarsest level.
        scans: scan blocks per level, in the encoder and again in the decoder.
        kernels: of the local blocks' depthwise convolutions, per level.
        in_channels: channels of the image.
        init: accepted for uniformity; both are PyTorch's and Mamba's own.
    """

    def __init__(
        self,
        channels: list[int],
        local: list[int],
        local_up: list[int],
        scans: list[int],
        kernels: list[int],
        *,
        in_channels: int = 3,
        init: Literal["mamba", "source"] = "mamba",
    ) -> None:
        super().__init__()
        del init
        self.levels = len(channels)
        self.feature_channels = channels[-2::-1]
        # A 3x3 convolution of 2x2 pixels merged to channels, as one operator.
        self.stem = nn.Conv2d(in_channels, channels[0], 6, stride=2, padding=2)
        for i, width in enumerate(channels):
            blocks = [*(LocalBlock(width, kernels[i]) for _ in range(local[i])), *_scans(width, scans[i])]
            self.add_module(f"encoder{i + 1}", nn.Sequential(*blocks))
        for i in range(1, self.levels):
            self.add_module(f"widen{i}", nn.Conv2d(channels[i - 1], channels[i], 1))
        for i in range(self.levels - 1, 0, -1):
            width = channels[i - 1]
            self.add_module(f"narrow{i}", nn.Conv2d(channels[i], width, 1))
            blocks = [
                *_scans(width, scans[i - 1]),
                *(LocalBlock(width, kernels[i - 1]) for _ in range(local_up[i - 1])),
            ]
            self.add_module(f"decoder{i}", nn.Sequential(*blocks))
        self.norm = GroupNorm4(channels[0])
        self.head = nn.Conv2d(channels[0], 1, 1)
        self.upsample = Upsample2()

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 1, H, W) and the decoder maps, coarse to fine."""
        x = self.stem(x)
        skips = []
        for i in range(1, self.levels):
            x = self.get_submodule(f"encoder{i}")(x)
            skips.append(x)
            x = F.max_pool2d(self.get_submodule(f"widen{i}")(x), 2)
        x = self.get_submodule(f"encoder{self.levels}")(x)
        maps = []
        for i in range(self.levels - 1, 0, -1):
            x = self.upsample(self.get_submodule(f"narrow{i}")(x)) + skips[i - 1]
            x = self.get_submodule(f"decoder{i}")(x)
            maps.append(x)
        return self.upsample(self.head(F.gelu(self.norm(x)))), maps


class LocalBlock(nn.Module):
    """Depthwise convolution, norm, two pointwise convolutions with GELU between, added: (B, c, H, W) -> same shape."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = GroupNorm4(channels)
        self.wide = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y: Tensor = self.narrow(F.gelu(self.wide(self.norm(self.depthwise(x)))))
        return x + y


class ScanBlock(nn.Module):
    """A PVM layer whose four chunks are read in four directions, added: (B, c, H, W) -> same shape.

    Chunk 0 is read row by row, 1 the same backwards, 2 column by column, 3 that backwards.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.norm = LayerNorm(channels)
        self.mamba = Mamba(channels // DIRECTIONS, D_STATE)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, channels, height, width = (int(n) for n in x.shape)
        length, c = height * width, channels // DIRECTIONS
        tokens = self.norm(x.permute(0, 2, 3, 1).reshape(batch, length, channels))
        image = tokens.reshape(batch, height, width, channels)
        rows, columns = image[..., : 2 * c], image[..., 2 * c :].transpose(1, 2)
        r, q = (part.reshape(batch, length, 2 * c) for part in (rows, columns))
        ordered = torch.cat([r[..., :c], r[..., c:].flip(1), q[..., :c], q[..., c:].flip(1)], 0)
        a, b, d, e = self.mamba(ordered).split(batch, 0)
        rows = torch.cat([a, b.flip(1)], 2)
        columns = torch.cat([d, e.flip(1)], 2).reshape(batch, width, height, 2 * c).transpose(1, 2)
        mixed = torch.cat([rows, columns.reshape(batch, length, 2 * c)], 2) + self.skip_scale * tokens
        y = self.proj(self.norm(mixed)).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return x + y


def _scans(width: int, count: int) -> list[ScanBlock]:
    return [ScanBlock(width) for _ in range(count)]
