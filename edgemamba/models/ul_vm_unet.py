"""UltraLight VM-UNet and the paper's variants v1 to v6.

Glossary: PVM parallel vision Mamba layer; SC_Att_Bridge spatial and channel attention on the skips; PPM pyramid
pooling; c_list channels per stage; nb branches (channel chunks that share one Mamba).

Source: Wu et al., "UltraLight VM-UNet" (2024), and the paper's variants; names of the published code.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.base import SegmentationModel
from edgemamba.models.blocks import AttentionBridge, Conv3x3, GroupNorm4, LayerNorm, Upsample2
from edgemamba.models.pyramid import PyramidPooling
from edgemamba.ssm import Mamba


class ULVMUNet(SegmentationModel):
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
        super().__init__()
        self.depth = depth = len(channels)
        self.feature_channels = channels[-2::-1]
        widths = [in_channels, *channels]
        for i in range(1, depth + 1):
            pyramid = ppm == "all" or (ppm == "bottleneck" and i == depth)
            stage = _stage(widths[i - 1], widths[i], branches, convolution=i <= depth - 3, pyramid=pyramid)
            self.add_module(f"encoder{i}", stage)
        self.scab = AttentionBridge(channels[:-1])
        for i in range(1, depth):
            stage = _stage(channels[-i], channels[-i - 1], branches, convolution=i > 3, pyramid=ppm == "all")
            self.add_module(f"decoder{i}", stage)
        for i in range(1, depth):
            self.add_module(f"ebn{i}", GroupNorm4(channels[i - 1]))
        for i in range(1, depth):
            self.add_module(f"dbn{i}", GroupNorm4(channels[-i - 1]))
        self.final = nn.Conv2d(channels[0], 1, 1)
        self.up2 = Upsample2()
        initialise(self, keep_mamba=init == "mamba")

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 1, H, W) and the decoder maps, coarse to fine."""
        skips = []
        for i in range(1, self.depth):
            x = F.gelu(self.get_submodule(f"ebn{i}")(self.get_submodule(f"encoder{i}")(x), pool=True))
            skips.append(x)
        x = F.gelu(self.get_submodule(f"encoder{self.depth}")(x))
        maps = []
        for i, skip in enumerate(reversed(self.scab(skips)), start=1):
            x = self.get_submodule(f"dbn{i}")(self.get_submodule(f"decoder{i}")(x))
            x = F.gelu(x if i == 1 else self.up2(x)) + skip
            maps.append(x)
        return self.up2(self.final(x)), maps


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
