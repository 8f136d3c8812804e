"""Two small classifiers, trained for seconds to say in which corner of a picture something bright lies."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from foreign import TokenNorm
from torch import Tensor, nn

from edgemamba.registry import ModelInfo
from edgemamba.sources import ModuleSource, Source
from edgemamba.ssm import Mamba

LABELS = ["top left", "top right", "bottom left", "bottom, right"]
SIZE = 32


def draw(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Pictures uint8 (N, SIZE, SIZE, 3) of noise with one bright blob, and the corner it lies in."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, len(LABELS), count)
    pictures = rng.integers(0, 90, (count, SIZE, SIZE, 3)).astype(np.uint8)
    for picture, label in zip(pictures, classes, strict=True):
        y, x = rng.integers(2, SIZE // 2 - 8, 2) + np.array(divmod(int(label), 2)) * SIZE // 2
        picture[y : y + 6, x : x + 6] = rng.integers(150, 256, 3)
    return pictures, classes


class ResNet9Like(nn.Module):
    """Convolutions with batch norm, one residual pair, pooling, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = self._block(3, 12), self._block(12, 24)
        self.residual = nn.Sequential(self._block(24, 24), self._block(24, 24))
        self.head = nn.Linear(24 * 16, len(LABELS))

    @staticmethod
    def _block(into: int, out: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        pool = nn.functional.max_pool2d
        x = pool(self.two(pool(self.one(x), 2)), 2)
        x = pool(x + self.residual(x), 2)
        return self.head(x.flatten(1))


class VimLike(nn.Module):
    """Patches, two Mamba blocks behind norms with residuals, a linear head on the last token's mean."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(torch.randn(1, (SIZE // 4) ** 2, width) * 0.5)
        self.norms = nn.ModuleList(TokenNorm(width) for _ in range(3))
        self.mixers = nn.ModuleList(Mamba(width, d_state=8) for _ in range(2))
        self.head = nn.Linear(width, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        for norm, mixer in zip(self.norms, self.mixers, strict=False):
            x = x + mixer(norm(x))
        return self.head(self.norms[2](x).mean(1))


@dataclasses.dataclass(frozen=True)
class ClassSource(ModuleSource):
    """A classifier of another project."""

    @property
    def labels(self) -> list[str]:
        return LABELS

    def reference(self) -> Any:
        return Source.reference(self)


def trained(kind: type[nn.Module], steps: int = 60) -> nn.Module:
    torch.manual_seed(0)
    net = kind().train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    for step in range(steps):
        pictures, classes = draw(32, 1000 + step)
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        loss = nn.functional.cross_entropy(net(x), torch.from_numpy(classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def source(net: nn.Module, images: Path | None, **changes: Any) -> ClassSource:
    count = sum(parameter.numel() for parameter in net.parameters())
    name = type(net).__name__.lower()
    info = ModelInfo(name, "", {}, count, 1, "classification", "a small classifier", classes=len(LABELS))
    source = ClassSource(name, info, "1" * 64, (SIZE, SIZE), 3, lambda: net, images, {})
    return dataclasses.replace(source, **changes)
