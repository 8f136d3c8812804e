"""ResNet encoders with a plain transposed-convolution decoder: two of the paper's baselines.

Source: He et al., "Deep Residual Learning" (2015); decoder of the paper's code, names of torchvision.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.base import SegmentationModel
from edgemamba.ssm import FormModule

_WIDTHS = (64, 128, 256, 512)


class ResNetSeg(SegmentationModel):
    """ResNet without its head, then four transposed convolutions and a bilinear doubling; no skips.

    The paper resizes to 256x256 whatever came in; here to the input's size, which is the same at 256x256.

    Args:
        blocks: blocks of each stage.
        bottleneck: blocks of three convolutions (ResNet-50) instead of two (ResNet-18).
        in_channels: channels of the image.
        init: accepted for uniformity; both are PyTorch's defaults.
    """

    def __init__(
        self,
        blocks: list[int],
        *,
        bottleneck: bool,
        in_channels: int = 3,
        init: Literal["mamba", "source"] = "mamba",
    ) -> None:
        super().__init__()
        del init
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), _PoolAfterReLU()
        )
        kind, expansion = (Bottleneck, 4) if bottleneck else (_Basic, 1)
        channels = 64
        for stage, (count, width) in enumerate(zip(blocks, _WIDTHS, strict=True)):
            layers: list[nn.Module] = []
            for block in range(count):
                layers.append(kind(channels, width, 2 if stage and not block else 1))
                channels = expansion * width
            self.encoder.append(nn.Sequential(*layers))
        ups = [channels, *((512, 256, 128) if bottleneck else (256, 128, 64)), 1]
        self.feature_channels = ups[1:-1]
        self.decoder = nn.Sequential()
        for cin, cout in itertools.pairwise(ups):
            if len(self.decoder):
                self.decoder.append(nn.ReLU())
            self.decoder.append(nn.ConvTranspose2d(cin, cout, 4, 2, 1))

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 1, H, W) and the decoder maps, coarse to fine (1/16, 1/8 and 1/4 of the sides)."""
        size = int(x.shape[2]), int(x.shape[3])
        x = self.encoder(x)
        maps = []
        for layer in self.decoder:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                maps.append(x)
        return F.interpolate(x, size, mode="bilinear", align_corners=False), maps


class _PoolAfterReLU(FormModule):
    """3x3 maximum with stride 2 and padding 1 of values that are not negative: for LiteRT zeros pad them."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, c, H/2, W/2)."""
        if self.form == "litert":
            return F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)
        return F.max_pool2d(x, 3, 2, 1)


def _shortcut(cin: int, cout: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and cin == cout:
        return None
    return nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))


class _Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(cin, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, width, H/stride, W/stride)."""
        short = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + short)


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, and 1x1 convolution to four times the width, beside a shortcut."""

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(cin, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, 4 width, H/stride, W/stride)."""
        short = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + short)
