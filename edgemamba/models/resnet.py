"""Residual classifiers for small images, what the Mamba ones are held against.

Source: He et al., "Deep Residual Learning" (2015), with the stem that is usual at 32x32; the nine-layer net is the
fast one of D. Page, "How to train your ResNet" (2018), in the wider form that tutorials use.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from edgemamba.models.base import ClassificationModel
from edgemamba.models.resnet_seg import Bottleneck


class ResNet9(ClassificationModel):
    """Eight convolutions, four of them in two residual pairs, and a linear layer.

    Args:
        widths: channels of the four stages.
        classes: outputs.
        in_channels: channels of the image.
        init: accepted for uniformity; both are PyTorch's defaults.
    """

    def __init__(
        self,
        widths: list[int],
        *,
        classes: int,
        in_channels: int = 3,
        init: Literal["mamba", "source"] = "mamba",
    ) -> None:
        super().__init__()
        del init
        self.classes = classes
        c1, c2, c3, c4 = widths
        self.conv1 = _conv(in_channels, c1)
        self.conv2 = _conv(c1, c2, pool=True)
        self.res1 = nn.Sequential(_conv(c2, c2), _conv(c2, c2))
        self.conv3 = _conv(c2, c3, pool=True)
        self.conv4 = _conv(c3, c4, pool=True)
        self.res2 = nn.Sequential(_conv(c4, c4), _conv(c4, c4))
        self.fc = nn.Linear(c4, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        x = self.conv2(self.conv1(x))
        x = x + self.res1(x)
        x = self.conv4(self.conv3(x))
        x = x + self.res2(x)
        # At 32x32 the published pooling of 4x4; the maximum of the whole map takes other sizes as well.
        return self.fc(x.amax((2, 3)))


class ResNet50(ClassificationModel):
    """Bottleneck ResNet with a 3x3 stem and no pooling before its stages.

    Args:
        blocks: blocks of each stage.
        classes: outputs.
        in_channels: channels of the image.
        init: accepted for uniformity; both are the published one.
    """

    def __init__(
        self,
        blocks: list[int],
        *,
        classes: int,
        in_channels: int = 3,
        init: Literal["mamba", "source"] = "mamba",
    ) -> None:
        super().__init__()
        del init
        self.classes = classes
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layers = nn.Sequential()
        channels = 64
        for stage, count in enumerate(blocks):
            stack = nn.Sequential()
            for block in range(count):
                stack.append(Bottleneck(channels, 64 * 2**stage, 2 if stage and not block else 1))
                channels = 256 * 2**stage
            self.layers.append(stack)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        x = self.layers(self.bn1(self.conv1(x)).relu())
        return self.fc(x.mean((2, 3)))


def _conv(cin: int, cout: int, *, pool: bool = False) -> nn.Sequential:
    """3x3 convolution with bias, batch norm, ReLU, and a 2x2 maximum with ``pool``."""
    layers: list[nn.Module] = [nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))
