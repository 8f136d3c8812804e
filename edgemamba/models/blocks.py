"""Layers that several networks share, in forms that export well.

The export forms compute the same function from operations that the runtimes have fast: normalisation after pooling
instead of before it, statistics per channel, constant matrices for pooling and resizing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.ssm import EXPORT_FORMS, Form, FormModule

GROUPS = 4


class GroupNorm4(nn.GroupNorm, FormModule):
    """Group normalisation in four groups, optionally followed by a 2x2 maximum."""

    _falling: bool = False
    _averages: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(GROUPS, channels)
        self.register_buffer("_averages", torch.empty(0), persistent=False)

    def use(self, form: Form) -> None:
        """Switch form; the export forms look at the weights now."""
        super().use(form)
        weight = self.weight.detach()
        self._falling = form in EXPORT_FORMS and bool((weight < 0).any())
        width = self.num_channels // GROUPS
        averages = torch.block_diag(*[torch.full((width, width), 1 / width)] * GROUPS).to(weight)
        self._averages = averages if form == "litert" else weight.new_empty(0)

    def forward(self, x: Tensor, *, pool: bool = False) -> Tensor:
        """(B, c, H, W) -> (B, c, H, W), or (B, c, H/2, W/2) with ``pool``."""
        if self.form not in EXPORT_FORMS:
            x = super().forward(x)
            return F.max_pool2d(x, 2) if pool else x
        # A maximum can be taken before a rising affine map, on a quarter of the elements after it.
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        sign = torch.sign(weight.detach()) if pool and self._falling else None
        if self.form == "litert":
            scale, shift = self._scale_and_shift(x)
        else:
            batch, channels, height, width = (int(n) for n in x.shape)
            x = F.instance_norm(x.reshape(batch, GROUPS, -1), eps=self.eps).reshape(
                batch, channels, height, width
            )
            scale, shift = weight, bias
        if pool and sign is None:
            x = F.max_pool2d(x, 2)
        elif sign is not None:
            x = F.max_pool2d(x * sign, 2)
            scale = scale * sign
        return x * scale + shift

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift per channel, (B, c, 1, 1), from statistics per channel averaged over each group."""
        batch, channels = int(x.shape[0]), int(x.shape[1])
        mean = x.mean((2, 3), keepdim=True)
        centred = x - mean
        variance = (centred * centred).mean((2, 3)).reshape(batch, channels)
        mean = mean.reshape(batch, channels)
        group_mean = F.linear(mean, self._averages)
        between = mean - group_mean
        variance = F.linear(variance + between * between, self._averages)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        shift = self.bias - group_mean * scale
        return scale[:, :, None, None], shift[:, :, None, None]


class LayerNorm(nn.LayerNorm, FormModule):
    """Layer normalisation over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)."""
        if self.form != "litert":
            return super().forward(x)
        centred = x - x.mean(-1, keepdim=True)
        scale = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + self.eps)
        return centred * scale * self.weight + self.bias


class AttentionBridge(nn.Module):
    """SC_Att_Bridge: spatial, then channel attention over all skips together.

    With a the spatial and b the channel attention, the published ``b (a t + t) + a t`` is ``t (a (1 + b) + b)``.

    Source: Wu et al., "UltraLight VM-UNet", section 3.3; Ruan et al., "MALUNet".
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.catt = _ChannelAttention(channels)
        self.satt = _SpatialAttention()

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        """Skips (B, c_j, H_j, W_j) -> attended skips of the same shapes."""
        spatial = [self.satt(skip) for skip in skips]
        pooled = [(skip * (a + 1)).mean((2, 3)) for skip, a in zip(skips, spatial, strict=True)]
        channel = self.catt(torch.cat(pooled, 1))
        return [t * torch.addcmul(b, a, b + 1) for t, a, b in zip(skips, spatial, channel, strict=True)]


class _SpatialAttention(FormModule):
    """Maximum and mean over channels, 7x7 convolution with dilation 3, sigmoid: (B, c, H, W) -> (B, 1, H, W)."""

    _rows: Tensor
    _column: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shared_conv2d = nn.Sequential(nn.Conv2d(2, 1, 7, padding=9, dilation=3))
        self.register_buffer("_rows", torch.empty(0), persistent=False)
        self.register_buffer("_column", torch.empty(0), persistent=False)

    def use(self, form: Form) -> None:
        """Switch form; the export forms keep the kernel as seven rows."""
        super().use(form)
        weight = self.shared_conv2d[0].weight.detach()
        size = weight.shape[2] if form in EXPORT_FORMS else 0
        # One output channel wastes the vector unit: seven (one per kernel row), then each moved to its place.
        self._rows = weight[0].permute(1, 0, 2)[:size, :, None]
        self._column = torch.eye(size).to(weight)[None, :, :, None]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        planes = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        if self.form not in EXPORT_FORMS:
            return torch.sigmoid(self.shared_conv2d(planes))
        rows = F.conv2d(planes, self._rows, padding=(0, 9), dilation=(1, 3))
        bias = self.shared_conv2d[0].bias
        return torch.sigmoid(F.conv2d(rows, self._column, bias, padding=(9, 0), dilation=(3, 1)))


class _ChannelAttention(nn.Module):
    """Channel means of all skips (B, S) -> one weight per channel of each skip, (B, c_j, 1, 1)."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.get_all_att = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.count = len(channels)
        for j, width in enumerate(channels, start=1):
            self.add_module(f"att{j}", nn.Linear(sum(channels), width))

    def forward(self, pooled: Tensor) -> list[Tensor]:
        """See the class."""
        mixed = self.get_all_att(pooled[:, None])[:, 0]
        weights = [torch.sigmoid(self.get_submodule(f"att{j}")(mixed)) for j in range(1, self.count + 1)]
        return [w[:, :, None, None] for w in weights]


class PyramidPooling(FormModule):
    """PPM: pool to 1, 2, 3 and 6 squared, convolve to c/8, c/4, c/2, c/8 channels, resize back, concatenate.

    Source: the paper's pyramid pooling module (models v4 and v6).
    """

    LEVELS = ((1, 8), (2, 4), (3, 2), (6, 8))

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(nn.Conv2d(channels, channels // part, 1) for _, part in self.LEVELS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, c, H, W); nothing finer than 6 x 6 is left."""
        height, width = int(x.shape[2]), int(x.shape[3])
        pooling = _pool_and_resize_matrices if self.form in EXPORT_FORMS else _pool_and_resize
        return torch.cat(
            [
                pooling(x, conv, cells, height, width)
                for (cells, _), conv in zip(self.LEVELS, self.conv_layers, strict=True)
            ],
            1,
        )


def _pool_and_resize(x: Tensor, conv: nn.Module, cells: int, height: int, width: int) -> Tensor:
    level = F.relu(conv(F.adaptive_avg_pool2d(x, cells)))
    return F.interpolate(level, (height, width), mode="bilinear", align_corners=True)


def _pool_and_resize_matrices(x: Tensor, conv: nn.Module, cells: int, height: int, width: int) -> Tensor:
    """The same as products with constant matrices: adaptive pooling is not an ONNX or TFLite operator."""
    level = torch.matmul(
        _pool_matrix(height, cells).to(x), torch.matmul(x, _pool_matrix(width, cells).t().to(x))
    )
    level = F.relu(conv(level))
    return torch.matmul(
        _resize_matrix(cells, height).to(x), torch.matmul(level, _resize_matrix(cells, width).t().to(x))
    )


def _pool_matrix(size: int, cells: int) -> Tensor:
    """Adaptive average pooling of ``size`` values as a (cells, size) matrix."""
    rows = []
    for cell in range(cells):
        first, last = cell * size // cells, -(-(cell + 1) * size // cells)
        rows.append([1 / (last - first) if first <= i < last else 0.0 for i in range(size)])
    return torch.tensor(rows, dtype=torch.float64)


def _resize_matrix(cells: int, size: int) -> Tensor:
    """Bilinear resizing with aligned corners of ``cells`` values as a (size, cells) matrix."""
    rows = []
    for i in range(size):
        position = i * (cells - 1) / (size - 1) if size > 1 else 0.0
        rows.append([max(0.0, 1 - abs(position - cell)) for cell in range(cells)])
    return torch.tensor(rows, dtype=torch.float64)
