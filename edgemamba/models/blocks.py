"""Layers that several networks share, in forms that export well.

The export forms compute the same function in an order that the runtimes run faster: a maximum before a rising affine
map, statistics over rows of memory, a convolution with one output channel as two.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.dilated import dilated_conv2d
from edgemamba.ssm import EXPORT_FORMS, Form, FormModule

GROUPS = 4


class Conv3x3(nn.Conv2d, FormModule):
    """3x3 convolution, padding 1: (B, cin, H, W) -> (B, cout, H, W)."""

    _pairs: Tensor

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(cin, cout, 3, padding=1)
        self.register_buffer("_pairs", torch.empty(0), persistent=False)

    def use(self, form: Form) -> None:
        """Switch form; LiteRT takes a kernel with few input channels over two columns at once."""
        super().use(form)
        weight = self.weight.detach()
        few = form == "litert" and self.in_channels <= 4
        self._pairs = _kernel_of_column_pairs(weight) if few else weight.new_empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if not self._pairs.numel():
            return super().forward(x)
        assert self.bias is not None
        batch, cin, height, width = (int(n) for n in x.shape)
        pairs = x.permute(0, 2, 3, 1).reshape(batch, height, width // 2, 2 * cin).permute(0, 3, 1, 2)
        y = F.conv2d(pairs, self._pairs, torch.cat([self.bias, self.bias]), padding=1)
        return y.permute(0, 2, 3, 1).reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def _kernel_of_column_pairs(weight: Tensor) -> Tensor:
    """(cout, cin, 3, 3) -> (2 cout, 2 cin, 3, 3): the same convolution on columns taken two by two as channels."""
    cout, cin = weight.shape[:2]
    pairs = weight.new_zeros(2, cout, 2, cin, 3, 3)
    for column in range(2):
        for tap in range(3):
            block, within = divmod(column + tap - 1, 2)
            pairs[column, :, within, :, :, block + 1] = weight[:, :, :, tap]
    return pairs.reshape(2 * cout, 2 * cin, 3, 3)


class GroupNorm4(nn.GroupNorm, FormModule):
    """Group normalisation in four groups, optionally followed by a 2x2 maximum."""

    _sign: Tensor
    _averages: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(GROUPS, channels)
        self.register_buffer("_sign", torch.empty(0), persistent=False)
        self.register_buffer("_averages", torch.empty(0), persistent=False)

    def use(self, form: Form) -> None:
        """Switch form; the export forms look at the signs of the weights now."""
        super().use(form)
        weight = self.weight.detach()
        falling = form in EXPORT_FORMS and bool((weight < 0).any())
        self._sign = torch.sign(weight)[:, None, None] if falling else weight.new_empty(0)
        width = self.num_channels // GROUPS
        averages = torch.block_diag(*[weight.new_full((width, width), 1 / width)] * GROUPS)
        self._averages = averages if form == "litert" else weight.new_empty(0)

    def forward(self, x: Tensor, *, pool: bool = False) -> Tensor:
        """(B, c, H, W) -> (B, c, H, W), or (B, c, H/2, W/2) with ``pool``."""
        if self.form not in EXPORT_FORMS:
            x = super().forward(x)
            return F.max_pool2d(x, 2) if pool else x
        if self.form == "litert":
            scale, shift = self._scale_and_shift(x)
        else:
            batch, channels, height, width = (int(n) for n in x.shape)
            x = F.instance_norm(x.reshape(batch, GROUPS, -1), eps=self.eps)
            x = x.reshape(batch, channels, height, width)
            scale, shift = self.weight[:, None, None], self.bias[:, None, None]
        if pool:
            # The maximum commutes with a rising affine map and leaves it a quarter of the elements.
            if self._sign.numel():
                x, scale = x * self._sign, scale * self._sign
            x = F.max_pool2d(x, 2)
        return x * scale + shift

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift per channel, (B, c, 1, 1).

        Statistics of each column and channel first, along rows of NHWC memory; a variance is then the mean of the
        variances plus the variance of the means.
        """
        batch, channels, height, width = (int(n) for n in x.shape)
        rows = x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
        column_mean = rows.mean(1, keepdim=True)
        centred = rows - column_mean
        inside = (centred * centred).mean(1).reshape(batch, width, channels)
        column_mean = column_mean.reshape(batch, width, channels)
        mean = F.linear(column_mean.mean(1), self._averages)
        between = column_mean - mean.reshape(batch, 1, channels)
        variance = F.linear((inside + between * between).mean(1), self._averages)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        shift = self.bias - mean * scale
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


class Upsample2(FormModule):
    """Bilinear x2 with aligned corners: (B, c, H, W) -> (B, c, 2H, 2W)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.form != "litert" or int(x.shape[1]) > 1:
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        # XNNPACK works along channels: with one channel, one direction at a time, the other one as channels.
        for _ in range(2):
            batch, _, height, width = (int(n) for n in x.shape)
            columns = x.reshape(batch, height, width).transpose(1, 2).reshape(batch, width, height, 1)
            columns = F.interpolate(columns, (2 * height, 1), mode="bilinear", align_corners=True)
            x = columns.reshape(batch, 1, width, 2 * height)
        return x


class AttentionBridge(FormModule):
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
        pooled = [self._pooled(skip, a) for skip, a in zip(skips, spatial, strict=True)]
        channel = self.catt(torch.cat(pooled, 1))
        return [t * torch.addcmul(b, a, b + 1) for t, a, b in zip(skips, spatial, channel, strict=True)]

    def _pooled(self, skip: Tensor, spatial: Tensor) -> Tensor:
        """Channel means of ``a t + t``, (B, c)."""
        if self.form == "litert":
            return (skip * (spatial + 1)).mean((2, 3))
        batch, channels, height, width = (int(n) for n in skip.shape)
        weights = ((spatial + 1) * (1 / (height * width))).reshape(batch, height * width, 1)
        return torch.matmul(skip.reshape(batch, channels, height * width), weights).reshape(batch, channels)


class _SpatialAttention(FormModule):
    """Mean and maximum over channels, 7x7 convolution with dilation 3, sigmoid: (B, c, H, W) -> (B, 1, H, W)."""

    _rows: Tensor
    _column: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shared_conv2d = nn.Sequential(nn.Conv2d(2, 1, 7, padding=9, dilation=3))
        self.register_buffer("_rows", torch.empty(0), persistent=False)
        self.register_buffer("_column", torch.empty(0), persistent=False)

    def _convolution(self) -> nn.Conv2d:
        convolution = self.shared_conv2d[0]
        assert isinstance(convolution, nn.Conv2d)
        return convolution

    def use(self, form: Form) -> None:
        """Switch form; the export forms keep the kernel as seven rows."""
        super().use(form)
        weight = self._convolution().weight.detach()
        size = weight.shape[2] if form in EXPORT_FORMS else 0
        # One output channel wastes a vector unit: seven, one per kernel row, and a second kernel that moves each
        # to its place and adds them.
        self._rows = weight[0].permute(1, 0, 2)[:size, :, None]
        self._column = torch.eye(size).to(weight)[None, :, :, None]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        planes = torch.cat([self._mean(x), x.amax(1, keepdim=True)], 1)
        if self.form not in EXPORT_FORMS:
            return torch.sigmoid(self._dilated(planes) if planes.is_cuda else self.shared_conv2d(planes))
        rows = F.conv2d(planes, self._rows, padding=(0, 9), dilation=(1, 3))
        bias = self._convolution().bias
        return torch.sigmoid(F.conv2d(rows, self._column, bias, padding=(9, 0), dilation=(3, 1)))

    def _dilated(self, planes: Tensor) -> Tensor:
        convolution = self._convolution()
        assert convolution.bias is not None
        return dilated_conv2d(planes, convolution.weight, convolution.bias, 9, 3)

    def _mean(self, x: Tensor) -> Tensor:
        """Mean over channels, (B, 1, H, W); ONNX Runtime is slow at reducing an outer axis, not at products."""
        if self.form != "onnx":
            return x.mean(1, keepdim=True)
        batch, channels, height, width = (int(n) for n in x.shape)
        weights = x.new_full((1, channels), 1 / channels)
        return torch.matmul(weights, x.reshape(batch, channels, height * width)).reshape(batch, 1, height, width)


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
