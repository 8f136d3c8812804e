"""U-Net, the baseline.

Source: Ronneberger et al., "U-Net" (2015), as in the paper: batch normalisation, padded convolutions, transposed
convolutions upwards.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.base import SegmentationModel


class UNet(SegmentationModel):
    """Four levels down, a bottleneck, four levels up.

    Args:
        width: channels of the first level; they double downwards.
        in_channels: channels of the image.
        init: accepted for uniformity; both are PyTorch's defaults, as published.
    """

    def __init__(self, width: int, *, in_channels: int = 3, init: Literal["mamba", "source"] = "mamba") -> None:
        super().__init__()
        del init
        widths = [in_channels, *(width << level for level in range(4))]
        self.feature_channels = widths[:0:-1]
        self.encoder1, self.encoder2, self.encoder3, self.encoder4 = (
            Block(cin, cout) for cin, cout in itertools.pairwise(widths)
        )
        self.bottleneck = Block(widths[-1], 2 * widths[-1])
        for level in (4, 3, 2, 1):
            narrow = widths[level]
            self.add_module(f"upconv{level}", nn.ConvTranspose2d(2 * narrow, narrow, 2, stride=2))
            self.add_module(f"decoder{level}", Block(2 * narrow, narrow))
        self.conv = nn.Conv2d(width, 1, 1)

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 1, H, W) and the decoder maps, coarse to fine."""
        skips = []
        for level in (1, 2, 3, 4):
            x = self.get_submodule(f"encoder{level}")(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottleneck(x)
        maps = []
        for level in (4, 3, 2, 1):
            joined = beside(self.get_submodule(f"upconv{level}"), x, skips[level - 1])
            x = self.get_submodule(f"decoder{level}")(joined)
            maps.append(x)
        return self.conv(x), maps


class Block(nn.Sequential):
    """Two 3x3 convolutions, each with batch normalisation and ReLU: (B, cin, H, W) -> (B, cout, H, W)."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(
            nn.Conv2d(cin, cout, 3, padding=1),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
            nn.Conv2d(cout, cout, 3, padding=1),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if not (self.training and x.is_cuda):
            y: Tensor = super().forward(x)
            return y
        for convolution, norm in ((self[0], self[1]), (self[3], self[4])):
            x = F.relu(normed(convolution, norm, x), inplace=True)
        return x


def normed(convolution: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Batch norm of a convolution in training, without its bias, which the batch's mean takes away again.

    Adding the bias and summing its gradient (zero) are a seventh of a training step of U-Net on an H100.
    """
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    bias, mean, count = convolution.bias, norm.running_mean, norm.num_batches_tracked
    assert bias is not None and mean is not None and count is not None and norm.momentum is not None
    y = F.conv2d(x, convolution.weight, None, convolution.stride, convolution.padding)
    with torch.no_grad():
        shifted = mean - bias
    y = F.batch_norm(y, shifted, norm.running_var, norm.weight, norm.bias, True, norm.momentum, norm.eps)
    with torch.no_grad():
        mean.copy_(shifted + bias)
        count.add_(1)
    return y


def beside(convolution: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
    """Transposed convolution of x, and skip: (B, cin, H, W) and (B, cout, 2H, 2W) -> (B, 2 cout, 2H, 2W).

    Compiled training on tensor cores takes it as a product: 2 % of a step of U-Net on an H100.
    """
    assert isinstance(convolution, nn.ConvTranspose2d)
    fused = torch.compiler.is_compiling() and convolution.training and x.is_cuda
    if fused and skip.is_contiguous(memory_format=torch.channels_last):
        return beside_by_product(convolution, x, skip)
    return torch.cat([convolution(x), skip], 1)


def beside_by_product(convolution: nn.ConvTranspose2d, x: Tensor, skip: Tensor) -> Tensor:
    """``beside`` for 2x2 taps with stride 2: a product over channels, whose shuffle fuses with the concatenation.

    Every step has the channels last, or torch.compile would copy the concatenation into that order.
    """
    assert convolution.bias is not None
    batch, cin, height, width = x.shape
    taps = x.permute(0, 2, 3, 1).reshape(-1, cin) @ convolution.weight.permute(0, 2, 3, 1).reshape(cin, -1)
    up = taps.reshape(batch, height, width, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
    up = up.reshape(batch, 2 * height, 2 * width, -1) + convolution.bias.to(taps.dtype)
    return torch.cat([up, skip.permute(0, 2, 3, 1)], -1).permute(0, 3, 1, 2)
