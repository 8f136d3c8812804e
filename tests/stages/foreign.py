"""Networks as another project may bring them, and their source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from edgemamba.registry import ModelInfo
from edgemamba.sources import ModuleSource


class TokenNorm(nn.Module):
    """Layer normalisation, written out as many projects do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + 1e-6) * self.gain + self.shift


class Tokens(nn.Module):
    """Patches, a norm with statistics, one attention with softmax, a residual perceptron: a small vision transformer.

    The output (1, K, 3) is no probability and no map.
    """

    def __init__(self, channels: int = 3, width: int = 24, outputs: int = 7) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 4, 4), nn.BatchNorm2d(width), nn.ReLU())
        self.norm1, self.norm2 = TokenNorm(width), TokenNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 3 * outputs)
        self.outputs = outputs

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.proj(torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, dim=-1) @ v)
        x = x + self.down(torch.relu(self.up(self.norm2(x))))
        return self.head(x.mean(1)).reshape(1, self.outputs, 3)


def source(
    make: Callable[[], nn.Module] = Tokens, *, channels: int = 3, size: int = 32, images: Path | None = None
) -> ModuleSource:
    """A seeded network of another project."""

    def factory() -> nn.Module:
        torch.manual_seed(0)
        return make()

    count = sum(parameter.numel() for parameter in factory().parameters())
    info = ModelInfo("their-net", "", {}, count, 1, "tensor", "a network of another project")
    return ModuleSource("theirs", info, "0" * 64, (size, size), channels, factory, images, {"module": "net.py:Tokens"})
