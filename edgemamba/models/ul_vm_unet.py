"""UltraLight VM-UNet and the paper's variants v1 to v6.

Glossary: PVM parallel vision Mamba layer; SC_Att_Bridge spatial and channel attention on the skips; PPM pyramid pooling;
c_list channels per stage; nb branches (channel chunks that share one Mamba).

Source: Wu et al., "UltraLight VM-UNet" (2024), and the paper's variants; parameter names of the published code.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.base import SegmentationModel
from edgemamba.models.blocks import AttentionBridge, GroupNorm4, LayerNorm, PyramidPooling
from edgemamba.ssm import FormModule, Mamba


class ULVMUNet(SegmentationModel):
    """Encoder of two or three convolutions and three PVM layers, attention on the skips, mirrored decoder.

    Args:
        channels: c_list; six entries for the original depth, five for v1 and v3.
        branches: channel chunks per PVM layer.
        ppm: which PVM layers start with pyramid pooling.
        in_channels: channels of the image.
        init: "source" as published (it overwrites Mamba's initialisation, dt starts at ln 2 everywhere), "mamba" keeps
            the Mamba blocks as state-spaces/mamba initialises them.
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
        depth = len(channels)
        widths = [in_channels, *channels]
        self.depth = depth
        self.feature_channels = channels[-2::-1]
        for i in range(1, depth + 1):
            pyramid = ppm == "all" or (ppm == "bottleneck" and i == depth)
            self.add_module(
                f"encoder{i}", _stage(widths[i - 1], widths[i], i <= depth - 3, branches, pyramid)
            )
        self.scab = AttentionBridge(channels[:-1])
        for i in range(1, depth):
            wide, narrow = channels[-i], channels[-i - 1]
            self.add_module(f"decoder{i}", _stage(wide, narrow, i > 3, branches, ppm == "all"))
        for i in range(1, depth):
            self.add_module(f"ebn{i}", GroupNorm4(channels[i - 1]))
        for i in range(1, depth):
            self.add_module(f"dbn{i}", GroupNorm4(channels[-i - 1]))
        self.final = nn.Conv2d(channels[0], 1, 1)
        _initialise(self, keep_mamba=init == "mamba")

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
            x = F.gelu(x if i == 1 else _up2(x)) + skip
            maps.append(x)
        return _up2(self.final(x)), maps


class PVMLayer(FormModule):
    """LayerNorm, one Mamba over ``branches`` channel chunks at once, the same LayerNorm, projection.

    (B, cin, H, W) -> (B, cout, H, W); tokens are pixels, row by row.
    """

    def __init__(self, cin: int, cout: int, branches: int, pyramid: bool) -> None:
        super().__init__()
        self.branches = branches
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.norm = LayerNorm(cin)
        self.mamba = Mamba(cin // branches)
        self.proj = nn.Linear(cin, cout)
        if pyramid:
            self.ppm = PyramidPooling(cin)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if hasattr(self, "ppm"):
            x = self.ppm(x)
        batch, cin, height, width = (int(n) for n in x.shape)
        length, groups = height * width, batch * self.branches
        chunk = self.mamba.chunk(length, groups)
        chunks = -(-length // chunk)
        x = x.reshape(batch * cin, length)
        if chunks * chunk != length:
            x = F.pad(x, (0, chunks * chunk - length))
        # Scan order (Q, K, B, cin): one transposition for LiteRT, two of matrices each way for ONNX Runtime.
        x = x.reshape(batch * cin, chunks, chunk)
        if self.form == "litert":
            tokens = self.norm(x.reshape(batch, cin, chunks, chunk).permute(3, 2, 0, 1)).contiguous()
        else:
            x = x.transpose(1, 2).reshape(batch * cin, -1).t()
            tokens = self.norm(x.reshape(chunk, chunks, batch, cin))
        mixed = self.mamba(tokens.view(chunk, chunks, groups, cin // self.branches))
        mixed = mixed.reshape(tokens.shape) + self.skip_scale * tokens
        y = self.proj(self.norm(mixed))
        if self.form == "litert":
            y = y.transpose(0, 1).contiguous().permute(2, 3, 0, 1)
        else:
            y = y.reshape(chunks * chunk, -1).t().reshape(-1, chunk, chunks).transpose(1, 2)
        return y.reshape(batch, -1, chunks * chunk)[..., :length].reshape(batch, -1, height, width)


def _stage(cin: int, cout: int, convolution: bool, branches: int, pyramid: bool) -> nn.Sequential:
    if convolution:
        return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1))
    return nn.Sequential(PVMLayer(cin, cout, branches, pyramid))


def _up2(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


@torch.no_grad()
def _initialise(model: nn.Module, *, keep_mamba: bool) -> None:
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
