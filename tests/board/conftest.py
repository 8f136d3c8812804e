"""Bundles of a small network, built once; every test works on a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from board import bundles

Copy = Callable[[str], Path]
TARGETS = {"onnx": "cpu", "tflite": "raspberry-pi-5", "jetson": "jetson-orin-nano"}


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Bundle for each runtime."""
    base = tmp_path_factory.mktemp("bundles")
    onnx, tflite = bundles.export_onnx(base), bundles.export_tflite(base)
    exported = {"onnx": onnx, "tflite": tflite, "jetson": onnx}
    for name, target in TARGETS.items():
        bundles.build(base / name, exported[name], target)
    int8 = bundles.quantize_tflite(tflite)
    bundles.build(base / "int8", int8, "raspberry-pi-5")
    return {name: base / name for name in (*TARGETS, "int8")}


@pytest.fixture
def copy(originals: dict[str, Path], tmp_path: Path) -> Copy:
    """Copies a Bundle as a person copies it to a board."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(originals[name], tmp_path / "board" / name))

    return make


@pytest.fixture(scope="session")
def packages(originals: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """What ``pip install -r requirements.txt`` of a Bundle brings."""
    base = tmp_path_factory.mktemp("packages")

    def make(name: str) -> Path:
        text = (originals[name] / "requirements.txt").read_text()
        if name == "jetson":
            # A board without TensorRT: the README says which package then to install.
            text += "onnxruntime\n"
        return bundles.board_site(text, base / name)

    return make
