"""Choices left open, choices refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgemamba.errors import EdgemambaError, Unsupported, UsageError
from edgemamba.train import TrainConfig


def test_open_choices_depend_on_data_recipe_and_device() -> None:
    phantoms = TrainConfig.resolve(device="cpu")
    assert (phantoms.model, phantoms.epochs, phantoms.size, phantoms.batch) == (
        "ul-vm-unet",
        20,
        (128, 128),
        8,
    )
    assert phantoms.out.parent == Path("runs")
    assert phantoms.out.name.endswith("-ul-vm-unet")
    lgg = TrainConfig.resolve(data="lgg", recipe="paper", device="cpu")
    assert (lgg.epochs, lgg.size, lgg.batch, lgg.init) == (100, (256, 256), 2, "source")
    assert TrainConfig.resolve(recipe="paper", init="mamba", device="cpu").init == "mamba"


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"model": "ul-vm-uent"}, UsageError, "ul-vm-uent"),
        ({"recipe": "papr"}, UsageError, "papr"),
        ({"size": 100}, Unsupported, "multiples of 32"),
        ({"size": (64, 80)}, Unsupported, "64x80"),
        ({"epochs": 0}, UsageError, "--epochs is 0"),
        ({"batch": -1}, UsageError, "--batch is -1"),
        ({"seed": -1}, UsageError, "--seed is -1"),
        ({"threads": -2}, UsageError, "--threads is -2"),
        ({"device": "tpu"}, UsageError, "expected auto, cpu or cuda"),
        ({"device": "cpu", "amp": True}, UsageError, "needs a CUDA device"),
        ({"resume": True, "force": True}, UsageError, "exclude each other"),
    ],
)
def test_impossible_choices(wrong: dict[str, Any], error: type[EdgemambaError], message: str) -> None:
    with pytest.raises(error, match=message):
        TrainConfig.resolve(**{"device": "cpu", **wrong})


def test_cuda_is_taken_where_there_is_one() -> None:
    if torch.cuda.is_available():
        assert TrainConfig.resolve().device == TrainConfig.resolve(device="cuda").device == "cuda"
        return
    assert TrainConfig.resolve().device == "cpu"
    with pytest.raises(Unsupported, match="no CUDA device"):
        TrainConfig.resolve(device="cuda")


def test_configuration_needs_no_torch() -> None:
    code = "import sys, edgemamba.train, edgemamba.train.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
