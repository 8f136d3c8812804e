"""What every segmentation network here offers."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn

from edgemamba.registry import ModelInfo


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


class Probability(nn.Module):
    """The network as it is exported: probabilities (B, 1, H, W) instead of logits."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities in [0, 1]."""
        return torch.sigmoid(self.model(x))
