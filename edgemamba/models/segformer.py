"""SegFormer, one of the paper's baselines.

Source: Xie et al., "SegFormer" (2021), in the public re-implementation that the paper ran, which differs from the
official network; names of that code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.base import SegmentationModel
from edgemamba.models.blocks import LayerNorm
from edgemamba.models.complexity import FunctionalProducts

_KERNELS, _STRIDES, _REDUCTIONS = (7, 3, 3, 3), (4, 2, 2, 2), (8, 4, 2, 1)
_EXPANSION = 4


class SegFormer(SegmentationModel):
    """Four stages of attention over reduced keys and convolutional MLPs, and a decoder of 1x1 convolutions.

    The published network gives logits at a quarter of the sides (``forward_quarter``); they are resized here.

    Args:
        widths: channels of the stages.
        depths: blocks of the stages.
        heads: attention heads of the stages.
        decoder_width: channels of the decoder.
        in_channels: channels of the image.
        init: accepted for uniformity; both are PyTorch's defaults.
    """

    def __init__(
        self,
        widths: list[int],
        depths: list[int],
        heads: list[int],
        decoder_width: int,
        *,
        in_channels: int = 3,
        init: Literal["mamba", "source"] = "mamba",
    ) -> None:
        super().__init__()
        del init
        pairs = itertools.pairwise([in_channels, *widths])
        rows = zip(pairs, depths, heads, _KERNELS, _STRIDES, _REDUCTIONS, strict=True)
        self.encoder = _Stages(_Stage(*pair, *settings) for pair, *settings in rows)
        self.decoder = _Stages(
            _UpProject(width, decoder_width, scale) for width, scale in zip(widths[::-1], (8, 4, 2, 1), strict=True)
        )
        self.head = _Head(len(widths) * decoder_width, decoder_width)
        self.feature_channels = [decoder_width]

    def forward_quarter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 1, H/4, W/4) and the fused map (B, decoder_width, H/4, W/4)."""
        features = []
        for stage in self.encoder.stages:
            x = stage(x)
            features.append(x)
        parts = [stage(part) for stage, part in zip(self.decoder.stages, reversed(features), strict=True)]
        fused = self.head.fuse(torch.cat(parts, 1))
        return self.head.predict(fused), fused

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 1, H, W) and the fused map."""
        size = int(x.shape[2]), int(x.shape[3])
        logits, fused = self.forward_quarter(x)
        return F.interpolate(logits, size, mode="bilinear", align_corners=False), [fused]


class _Stages(nn.Module):
    """A list under the name of the published code."""

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)


class _ImageNorm(LayerNorm):
    """Layer normalisation over the channels of each pixel: (B, c, H, W) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.fn = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> same."""
        return x + self.fn(x)


class _AttentionWeights(nn.Module):
    """Parameters under the names of ``nn.MultiheadAttention``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)


class _Attention(FunctionalProducts):
    """Attention of every pixel to a map that a strided convolution has reduced: (B, c, H, W) -> same."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.reducer = nn.Sequential(nn.Conv2d(channels, channels, reduction, reduction), _ImageNorm(channels))
        self.att = _AttentionWeights(channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, channels, height, width = (int(n) for n in x.shape)
        reduced = self.reducer(x).flatten(2).transpose(1, 2)
        tokens = x.flatten(2).transpose(1, 2)
        weights, biases = self.att.in_proj_weight.chunk(3), self.att.in_proj_bias.chunk(3)
        sources = (tokens, reduced, reduced)
        q, k, v = (self._heads(F.linear(s, w, b)) for s, w, b in zip(sources, weights, biases, strict=True))
        scores = torch.matmul(q * (1 / math.sqrt(channels / self.heads)), k.transpose(2, 3))
        mixed = torch.matmul(torch.softmax(scores, -1), v)
        y = self.att.out_proj(mixed.transpose(1, 2).reshape(batch, height * width, channels))
        return y.transpose(1, 2).reshape(batch, channels, height, width)

    def product_macs(self, x: Tensor) -> int:
        """The projections of queries, keys and values, scores and mixing."""
        channels, height, width = (int(n) for n in x.shape[1:])
        queries = height * width
        keys = queries // self.reduction**2
        return int(x.shape[0]) * channels * ((queries + 2 * keys) * channels + 2 * queries * keys)

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, channels = (int(n) for n in x.shape)
        return x.reshape(batch, length, self.heads, channels // self.heads).transpose(1, 2)


def _mlp(channels: int) -> nn.Sequential:
    wide = _EXPANSION * channels
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1),
        nn.Conv2d(channels, wide, 3, padding=1, groups=channels),
        nn.GELU(),
        nn.Conv2d(wide, channels, 1),
    )


class _Stage(nn.Module):
    def __init__(self, cin: int, cout: int, depth: int, heads: int, kernel: int, stride: int, reduction: int) -> None:
        super().__init__()
        self.overlap_patch_merge = nn.Sequential(
            nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), _ImageNorm(cout)
        )
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    _Residual(_ImageNorm(cout), _Attention(cout, heads, reduction)),
                    _Residual(_ImageNorm(cout), _mlp(cout)),
                )
                for _ in range(depth)
            )
        )
        self.norm = _ImageNorm(cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H/stride, W/stride)."""
        return self.norm(self.blocks(self.overlap_patch_merge(x)))


class _UpProject(nn.Sequential):
    """Bilinear enlargement with aligned corners, then a 1x1 convolution."""

    def __init__(self, cin: int, cout: int, scale: int) -> None:
        super().__init__(nn.Identity(), nn.Conv2d(cin, cout, 1))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) -> (B, cout, scale h, scale w)."""
        if self.scale > 1:
            size = self.scale * int(x.shape[2]), self.scale * int(x.shape[3])
            x = F.interpolate(x, size, mode="bilinear", align_corners=True)
        return super().forward(x)


class _Head(nn.Module):
    """Convolution, ReLU, then batch normalisation, in this order."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.fuse = nn.Sequential(nn.Conv2d(cin, cout, 1, bias=False), nn.ReLU(), nn.BatchNorm2d(cout))
        self.predict = nn.Conv2d(cout, 1, 1)
