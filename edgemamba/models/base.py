"""What every network here offers, and how it is exported."""

from __future__ import annotations

import abc
from typing import TypeAlias

import torch
from torch import Generator, Tensor, nn

from edgemamba.registry import ModelInfo, Task


class SegmentationModel(nn.Module, abc.ABC):
    """Images (B, 3, H, W) float32 -> logits (B, 1, H, W).

    Attributes:
        info: the registry's entry; set by ``build``.
        feature_channels: channels of the decoder maps of ``forward_features``, coarse to fine.
    """

    info: ModelInfo
    feature_channels: list[int]

    @abc.abstractmethod
    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the decoder maps from coarse to fine (for deep supervision)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 1, H, W)."""
        return self.forward_features(x)[0]


class ClassificationModel(nn.Module, abc.ABC):
    """Images (B, 3, H, W) float32 in [0, 1] -> logits (B, K).

    Attributes:
        info: the registry's entry; set by ``build``.
        classes: K.
    """

    info: ModelInfo
    classes: int

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""


class RandomModule(nn.Module):
    """A module that draws random numbers in training; the training gives it the generator that it seeds.

    Attributes:
        generator: on the module's device; None is torch's own.
    """

    generator: Generator | None = None


Network: TypeAlias = SegmentationModel | ClassificationModel


class Exported(nn.Module):
    """A network as it is exported: probabilities in place of logits.

    Args:
        model: the network.
        task: segmentation has a sigmoid a pixel, classification a softmax over the classes, tensor nothing.
    """

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, x: Tensor) -> Tensor:
        """Segmentation: (B, 1, H, W) in [0, 1]; classification: (B, K), sum 1; tensor: as the network gives it."""
        found: Tensor = self.model(x)
        if self.task == "segmentation":
            return torch.sigmoid(found)
        return torch.softmax(found, dim=1) if self.task == "classification" else found
