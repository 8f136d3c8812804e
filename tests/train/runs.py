"""Small runs that tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgemamba.console import Console
from edgemamba.train import TrainConfig
from edgemamba.train.checkpoint import load_state

QUIET = Console(quiet=True)
PHANTOMS = {"patients": 8, "slices": 6, "size": 32}


def tiny(out: Path, **changes: Any) -> TrainConfig:
    """Two epochs of UL-VM-UNet on 32x32 phantoms: about a second."""
    settings: dict[str, Any] = {"data_options": PHANTOMS, "size": 32, "epochs": 2, "batch": 8, "threads": 1}
    return TrainConfig.resolve(out=out, device="cpu", **settings | changes)


def assert_same_state(one: Path, other: Path) -> None:
    """Weights, averages, optimizer and best weights of two runs are equal bit by bit."""
    left, _ = load_state(one / "state" / "last.safetensors")
    right, _ = load_state(other / "state" / "last.safetensors")
    assert left.keys() == right.keys()
    odd = [name for name in left if not torch.equal(left[name], right[name])]
    assert not odd
