"""A small real network, its artifacts in every format, and Bundles of them: for tests of board and bundle.

The network marks what is bright in FLAIR after a 3x3 mean: ``reference`` computes the same in numpy, float64.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from packaging.requirements import Requirement
from torch import nn

from edgemamba import bundle
from edgemamba.presets import find_target
from edgemamba.records import DataRef, Manifest, StageRecord
from edgemamba.registry import MODELS

SIZE = (64, 64)
GAIN, LEVEL = 24.0, 0.35
# Importing these takes seconds; nothing of a board needs them.
FORBIDDEN = ("edgemamba", "torch", "onnx", "pydantic", "typer")


class Bright(nn.Module):
    """sigmoid(GAIN * (mean3x3(FLAIR) - LEVEL)); ``flip`` makes it wrong."""

    def __init__(self, flip: bool = False) -> None:
        super().__init__()
        self.blur = nn.Conv2d(3, 2, 3, padding=1, bias=False)
        self.head = nn.Conv2d(2, 1, 1)
        with torch.no_grad():
            self.blur.weight.zero_()
            self.blur.weight[:, 1] = 1.0 / 9.0
            self.head.weight.fill_(-GAIN / 2 if flip else GAIN / 2)
            self.head.bias.fill_(-GAIN * LEVEL)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.head(torch.relu(self.blur(x))))


def reference(x: np.ndarray) -> np.ndarray:
    """The same without torch: (n, 3, h, w) to float32 (n, h, w)."""
    flair = np.pad(x[:, 1].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    h, w = x.shape[2:]
    mean = sum(flair[:, i : i + h, j : j + w] for i in range(3) for j in range(3)) / 9.0
    return (1.0 / (1.0 + np.exp(-GAIN * (mean - LEVEL)))).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Exported:
    path: Path
    format: Any
    precision: Any = "fp32"


def export_onnx(folder: Path, *, flip: bool = False, size: tuple[int, int] = SIZE, traces: bool = False) -> Exported:
    """With ``traces``, the exporter's stack traces stay in the graph."""
    path = folder / f"bright-{flip}-{size[0]}.onnx"
    x = torch.zeros(1, 3, *size)
    torch.onnx.export(
        Bright(flip).eval(),
        (x,),
        str(path),
        dynamo=True,
        opset_version=18,
        external_data=False,
        verbose=False,
    )
    if not traces:
        model = onnx.load(path)
        for part in (model, model.graph, *model.graph.node):
            del part.metadata_props[:]
        onnx.save(model, path)
    return Exported(path, "onnx")


def export_network(folder: Path, name: str) -> tuple[Exported, Callable[[np.ndarray], np.ndarray]]:
    """A registered network with random weights as the export stage writes it, and its PyTorch reference."""
    from edgemamba.models import build as build_network
    from edgemamba.stages.to_onnx import to_onnx

    torch.manual_seed(0)
    net = build_network(name).eval()
    path = folder / f"{name}.onnx"
    to_onnx(net, SIZE, path, opset=20, ir_version=10)

    def probability(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.sigmoid(net(torch.from_numpy(x)))[:, 0].numpy()

    return Exported(path, "onnx"), probability


class ChannelLast(nn.Module):
    """The same net with NHWC input and output."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def export_tflite(folder: Path, *, channel_last: bool = False) -> Exported:
    from edgemamba.stages.tflite_graph import write
    from edgemamba.stages.to_tflite import convert

    path = folder / f"bright-{channel_last}.tflite"
    net: nn.Module = Bright().eval()
    model = convert(ChannelLast(net), (1, *SIZE, 3)) if channel_last else convert(net, (1, 3, *SIZE))
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        # The quantizer addresses every tensor by a name.
        tensor.name = tensor.name or f"tensor{index}".encode()
    write(model, path)
    return Exported(path, "tflite")


def quantize_tflite(exported: Exported) -> Exported:
    """Static int8 with int8 input and output."""
    from ai_edge_quantizer import quantizer, recipe

    path = exported.path.with_name("bright-int8.tflite")
    tool = quantizer.Quantizer(str(exported.path), recipe.static_wi8_ai8())
    rng = np.random.default_rng(0)
    images = [{"image": rng.random((1, 3, *SIZE), np.float32)} for _ in range(4)]
    tool.quantize(tool.calibrate({"serving_default": images})).export_model(str(path))
    return Exported(path, "tflite", "int8")


DATA = DataRef(
    name="phantoms",
    root="/somewhere/private",
    split="patient",
    fingerprint="ab" * 32,
    counts={"train": 7, "val": 2, "test": 2},
)
STAGES = [StageRecord(name="export", title="PyTorch to ONNX", seconds=1.5, cached=False, facts={"nodes": 7})]


def build(out: Path, exported: Exported, target: str, **changes: Any) -> Manifest:
    arguments: dict[str, Any] = {
        "artifact": exported,
        "target": find_target(target),
        "model_info": MODELS["ul-vm-unet"],
        "size": SIZE,
        "reference": reference,
        "stages": STAGES,
        "verification": {"mean_abs_diff": 1.25e-8, "mask_agreement": 1.0},
        "quantization": None,
        "source": {"weights_sha256": "cd" * 32},
        "data": DATA,
        "metrics": {"test": {"dice_pooled": 0.8125, "protocol": "pooled over the set"}},
        **changes,
    }
    return bundle.build(out, **arguments)


@functools.cache
def board_site(requirements: str, target: Path) -> Path:
    """A folder of links to the packages that these requirements bring, and to nothing else."""
    target.mkdir(parents=True)
    todo = [Requirement(line) for line in requirements.split("\n") if line]
    done: set[str] = set()
    packages = Path(str(metadata.distribution("numpy").locate_file("")))
    while todo:
        wanted = todo.pop()
        if wanted.name in done or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        done.add(wanted.name)
        distribution = metadata.distribution(wanted.name)
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            if not (target / top).exists():
                (target / top).symlink_to(packages / top)
        todo += [Requirement(line) for line in distribution.requires or []]
    return target


def on_board(
    folder: Path, packages: Path, script: str, *arguments: str, cwd: Path, text: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script of a Bundle with only ``packages`` importable, in another folder than the Bundle."""
    clean = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd.parent / "home"),
        "PYTHONPATH": str(packages),
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-S", "-s", str(folder / script), *arguments],
        cwd=cwd,
        env=clean,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
    )


def importable(name: str, packages: Path, cwd: Path) -> bool:
    """Whether such a process can import ``name``."""
    done = subprocess.run(
        [sys.executable, "-S", "-s", "-c", f"import {name}"],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(packages)},
        capture_output=True,
    )
    return done.returncode == 0
