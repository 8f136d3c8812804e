"""Every precision's graph through NVIDIA's own strongly typed parser (TensorRT-RTX, which needs no GPU to parse)."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgemamba.board import build_engine
from edgemamba.board.runner import BundleError
from edgemamba.stages.artifact import Artifact
from edgemamba.stages.calibration import CalibrationSet
from edgemamba.stages.fp16 import write_fp16
from edgemamba.stages.int8_onnx import to_int8
from edgemamba.stages.plan import QUANTIZERS

MODULE = "tensorrt_rtx_bindings"
TENSORS = {"image": [1, 3, 64, 64, "FLOAT"], "probability": [1, 1, 64, 64, "FLOAT"]}


def test_fp32(fp32: Artifact) -> None:
    assert build_engine.check_graph(fp32.path, MODULE)["tensors"] == TENSORS


def test_fp16_has_no_mixed_operands(fp32: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    write_fp16(fp32.path, path)
    assert build_engine.check_graph(path, MODULE)["tensors"] == TENSORS
    model = onnx.load(path)
    cast = next(node for node in model.graph.node if node.op_type == "Cast")
    cast.op_type = "Identity"
    del cast.attribute[:]
    onnx.save(model, path)
    with pytest.raises(BundleError):
        build_engine.check_graph(path, MODULE)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_int8(quantizer: str, fp32: Artifact, calibration: CalibrationSet, tmp_path: Path) -> None:
    few = CalibrationSet(calibration.images[:4], calibration.truths[:4], calibration.ids[:4], "few")
    to_int8(fp32.path, few, tmp_path / "int8.onnx", quantizer=quantizer, task="segmentation")
    assert build_engine.check_graph(tmp_path / "int8.onnx", MODULE)["tensors"] == TENSORS
