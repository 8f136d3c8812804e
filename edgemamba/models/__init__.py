"""Segmentation networks by name."""

from __future__ import annotations

import importlib
from typing import Literal

from edgemamba.models.base import Probability, SegmentationModel
from edgemamba.models.complexity import Complexity, count
from edgemamba.registry import model_info

__all__ = ["Complexity", "Probability", "SegmentationModel", "build", "count"]


def build(name: str, *, in_channels: int = 3, init: Literal["mamba", "source"] = "mamba") -> SegmentationModel:
    """Build a registered network with fresh weights, float32, in training mode.

    Args:
        name: registry name.
        in_channels: channels of the image.
        init: "mamba" keeps Mamba's own initialisation of the state space, "source" is the published code's.

    Raises:
        UsageError: unknown name.
    """
    info = model_info(name)
    module, factory = info.factory.split(":")
    model: SegmentationModel = getattr(importlib.import_module(module), factory)(
        **info.kwargs, in_channels=in_channels, init=init
    )
    model.info = info
    return model
