"""Networks by name."""

from __future__ import annotations

import importlib
from typing import Literal

from edgemamba.models.base import ClassificationModel, Exported, Network, RandomModule, SegmentationModel
from edgemamba.models.complexity import Complexity, count
from edgemamba.registry import model_info

__all__ = [
    "ClassificationModel",
    "Complexity",
    "Exported",
    "Network",
    "RandomModule",
    "SegmentationModel",
    "build",
    "build_segmentation",
    "count",
]


def build(
    name: str, *, in_channels: int = 3, init: Literal["mamba", "source"] = "mamba", classes: int | None = None
) -> Network:
    """Build a registered network with fresh weights, float32, in training mode.

    Args:
        name: registry name.
        in_channels: channels of the image.
        init: "mamba" keeps Mamba's own initialisation of the state space, "source" is the published code's.
        classes: of a classifier; None takes the published network's.

    Raises:
        UsageError: unknown name.
    """
    info = model_info(name)
    module, factory = info.factory.split(":")
    more = {"classes": classes or info.classes} if info.task == "classification" else {}
    model: Network = getattr(importlib.import_module(module), factory)(
        **info.kwargs, **more, in_channels=in_channels, init=init
    )
    model.info = info
    return model


def build_segmentation(
    name: str, *, in_channels: int = 3, init: Literal["mamba", "source"] = "mamba"
) -> SegmentationModel:
    """``build`` of a network that is known to segment."""
    model = build(name, in_channels=in_channels, init=init)
    assert isinstance(model, SegmentationModel), f"{name} does not segment"
    return model
