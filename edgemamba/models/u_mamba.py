"""U-Mamba with its Mamba layer at the bottleneck, and the paper's variant with pyramid pooling before it.

Source: Ma et al., "U-Mamba" (2024), in the early form that the paper ported; names of that port.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.base import SegmentationModel
from edgemamba.models.blocks import LayerNorm
from edgemamba.models.pyramid import PyramidPooling
from edgemamba.ssm import FormModule, Mamba

_SLOPE = 0.01


class UMambaBot(SegmentationModel):
    """Residual encoder and decoder with instance normalisation, LayerNorm and Mamba on the deepest map.

    Args:
        channels: of the encoder stages; each but the first halves the sides.
        pyramid: pool the deepest map before Mamba (``u-mamba-bot-pp``).
        in_channels: channels of the image.
        init: accepted for uniformity; the port keeps PyTorch's and Mamba's own, as published.
    """

    def __init__(
        self,
        channels: list[int],
        *,
        pyramid: bool = False,
        in_channels: int = 3,
        init: Literal["mamba", "source"] = "mamba",
    ) -> None:
        super().__init__()
        del init
        self.feature_channels = channels[-2::-1]
        self.encoder = _Encoder(channels, in_channels)
        self.ppm = PyramidPooling(channels[-1]) if pyramid else None
        self.ln = LayerNorm(channels[-1])
        self.mamba = Mamba(channels[-1])
        self.decoder = _Decoder(channels[::-1])

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 1, H, W) and the decoder maps, coarse to fine."""
        *skips, x = self.encoder(x)
        if self.ppm is not None:
            x = self.ppm(x)
        batch, channels, height, width = (int(n) for n in x.shape)
        tokens = self.mamba(self.ln(x.reshape(batch, channels, height * width).transpose(1, 2)))
        maps = self.decoder(tokens.transpose(1, 2).reshape(batch, channels, height, width), skips[::-1])
        return self.decoder.seg_layers[-1](maps[-1]), maps


class InstanceNorm(FormModule):
    """Every channel of every image to mean 0 and variance 1, without parameters: (B, c, H, W) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.form != "litert":
            return F.instance_norm(x)
        centred = x - x.mean((2, 3), keepdim=True)
        return centred * torch.rsqrt((centred * centred).mean((2, 3), keepdim=True) + 1e-5)


class _ConvNorm(nn.Module):
    """Convolution, instance normalisation and, with ``active``, LeakyReLU."""

    def __init__(
        self, cin: int, cout: int, kernel: int = 3, stride: int = 1, *, bias: bool = True, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2, bias=bias)
        self.norm = InstanceNorm()
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H/stride, W/stride)."""
        x = self.norm(self.conv(x))
        return F.leaky_relu(x, _SLOPE) if self.active else x


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(cin, cout, stride=stride)
        self.conv2 = _ConvNorm(cout, cout, active=False)
        shortcut: list[nn.Module] = []
        if stride > 1:
            shortcut.append(nn.AvgPool2d(stride))
        if cin != cout:
            shortcut.append(_ConvNorm(cin, cout, 1, bias=False, active=False))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H/stride, W/stride)."""
        return F.leaky_relu(self.conv2(self.conv1(x)) + self.skip(x), _SLOPE)


class _Blocks(nn.Module):
    """One residual block under the name that the published code gives a list of them."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        self.blocks = nn.Sequential(_Residual(cin, cout, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H/stride, W/stride)."""
        return self.blocks(x)


class _Stem(nn.Module):
    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(_ConvNorm(cin, cout))

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H, W)."""
        return self.convs(x)


class _Encoder(nn.Module):
    def __init__(self, channels: list[int], in_channels: int) -> None:
        super().__init__()
        self.stem = _Stem(in_channels, channels[0])
        steps = itertools.pairwise([channels[0], *channels])
        self.stages = nn.ModuleList(_Blocks(cin, cout, 1 if i == 0 else 2) for i, (cin, cout) in enumerate(steps))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The outputs of all stages, fine to coarse."""
        x = self.stem(x)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class _Decoder(nn.Module):
    """Of the heads only the last is used; the published net has the others too, and its parameter count."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(channels))
        self.stages = nn.ModuleList(_Blocks(2 * cout, cout) for _, cout in pairs)
        self.transpconvs = nn.ModuleList(nn.ConvTranspose2d(cin, cout, 2, stride=2) for cin, cout in pairs)
        self.seg_layers = nn.ModuleList(nn.Conv2d(cout, 1, 1) for _, cout in pairs)

    def forward(self, x: Tensor, skips: list[Tensor]) -> list[Tensor]:
        """Maps coarse to fine, one for each of ``skips``."""
        maps = []
        for up, stage, skip in zip(self.transpconvs, self.stages, skips, strict=True):
            x = stage(torch.cat([up(x), skip], 1))
            maps.append(x)
        return maps
