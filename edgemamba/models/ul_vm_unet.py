"""UltraLight VM-UNet and the paper's variants v1 to v6.

Glossary: PVM parallel vision Mamba layer; SC_Att_Bridge spatial and channel attention on the skips; PPM pyramid
pooling; c_list channels per stage; nb branches (channel chunks that share one Mamba).

Source: Wu et al., "UltraLight VM-UNet" (2024), and the paper's variants; names of the published code.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.blocks import AttentionBridge, Conv3x3, LayerNorm
from edgemamba.models.mirrored import MirroredNet
from edgemamba.models.pyramid import PyramidPooling
from edgemamba.ssm import Mamba


class ULVMUNet(MirroredNet):
    """Encoder of two or three convolutions and three PVM layers, attention on the skips, mirrored decoder.

    Args:
        channels: c_list; six entries for the original depth, five for v1 and v3.
        branches: channel chunks per PVM layer.
        ppm: which PVM layers start with pyramid pooling.
        in_channels: channels of the image.
        init: "source" as published, where the general rule for linear layers overwrites Mamba's own (dt starts at
            ln 2 everywhere); "mamba" keeps the Mamba blocks as state-spaces/mamba initialises them.
    """

    def __init__(
        self,
        channels: list[int],
        branches: int,
        *,
        ppm: Literal["none", "all", "bottleneck"] = "none",
        in_channels: int = 3,
        init: Literal["mamba", "source"] = "mamba",
    ) -> None:
        super().__init__(channels)
        depth = self.depth
        widths = [in_channels, *channels]
        for i in range(1, depth + 1):
            pyramid = ppm == "all" or (ppm == "bottleneck" and i == depth)
            stage = _stage(widths[i - 1], widths[i], branches, convolution=i <= depth - 3, pyramid=pyramid)
            self.add_module(f"encoder{i}", stage)
        self.scab = AttentionBridge(channels[:-1])
        for i in range(1, depth):
            stage = _stage(channels[-i], channels[-i - 1], branches, convolution=i > 3, pyramid=ppm == "all")
            self.add_module(f"decoder{i}", stage)
        self.add_norms_and_head(keep_mamba=init == "mamba")

    def skips(self, maps: list[Tensor]) -> list[Tensor]:
        """See ``MirroredNet``."""
        return self.scab(maps)


class PVMLayer(nn.Module):
    """LayerNorm, one Mamba over ``branches`` channel chunks at once, the same LayerNorm, projection.

    (B, cin, H, W) -> (B, cout, H, W). Tokens are pixels, row by row.

    Source: Wu et al., "UltraLight VM-UNet", section 3.2.
    """

    def __init__(self, cin: int, cout: int, branches: int, *, pyramid: bool) -> None:
        super().__init__()
        self.branches = branches
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.norm = LayerNorm(cin)
        self.mamba = Mamba(cin // branches)
        self.proj = nn.Linear(cin, cout)
        self.ppm = PyramidPooling(cin) if pyramid else None

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.ppm is not None:
            x = self.ppm(x)
        batch, cin, height, width = (int(n) for n in x.shape)
        length, groups = height * width, batch * self.branches
        chunk = self.mamba.chunk(length, groups)
        chunks = -(-length // chunk)
        tokens = self.norm(x.reshape(batch, cin, length).permute(2, 0, 1))
        if chunks * chunk != length:
            tokens = F.pad(tokens, (0, 0, 0, 0, 0, chunks * chunk - length))
        # Scan order (Q, K, B, cin). The norms stand between the transpositions: two cheap ones each way, of a
        # matrix and of whole rows, which a runtime would otherwise merge into a slow one.
        tokens = tokens.reshape(chunks, chunk, batch, cin).transpose(0, 1).reshape(chunk, chunks, batch, cin)
        mixed = self.mamba(tokens.reshape(chunk, chunks, groups, cin // self.branches))
        mixed = mixed.reshape(chunk, chunks, batch, cin) + self.skip_scale * tokens
        mixed = mixed.transpose(0, 1).reshape(chunks * chunk, batch, cin)
        if chunks * chunk != length:
            mixed = mixed[:length]
        return self.proj(self.norm(mixed)).permute(1, 2, 0).reshape(batch, -1, height, width)


def _stage(cin: int, cout: int, branches: int, *, convolution: bool, pyramid: bool) -> nn.Sequential:
    return nn.Sequential(Conv3x3(cin, cout) if convolution else PVMLayer(cin, cout, branches, pyramid=pyramid))
