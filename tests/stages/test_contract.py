"""What every registered network promises: one export to ONNX and one to TFLite that compute what PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from networks import fresh
from tflite_run import run

from edgemamba.registry import MODELS
from edgemamba.stages.to_onnx import to_onnx
from edgemamba.stages.to_tflite import to_tflite

SIZE = (64, 64)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_both_artifacts_compute_the_network(name: str, tmp_path: Path) -> None:
    model = fresh(name)
    image = np.random.default_rng(0).random((1, 3, *SIZE), np.float32)
    with torch.no_grad():
        expected = torch.sigmoid(model(torch.from_numpy(image))).numpy()
    to_onnx(model, SIZE, tmp_path / "m.onnx", opset=20, ir_version=10)
    to_tflite(model, SIZE, tmp_path / "m.tflite")
    by_onnx = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"image": image})[0]
    for found in (by_onnx, run(tmp_path / "m.tflite", image)):
        assert np.abs(found - expected).mean() <= 1e-6
        assert ((found >= 0.5) == (expected >= 0.5)).mean() >= 0.999
