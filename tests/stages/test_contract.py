"""What every registered network promises: one export to ONNX and one to TFLite that compute what PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from networks import fresh
from tflite_run import run

from edgemamba.models import Exported, build
from edgemamba.registry import MODELS, OUTPUTS
from edgemamba.stages.to_onnx import to_onnx
from edgemamba.stages.to_tflite import to_tflite


@pytest.mark.parametrize("name", sorted(MODELS))
def test_both_artifacts_compute_the_network(name: str, tmp_path: Path) -> None:
    info, model = MODELS[name], fresh(name)
    size = (64, 64) if info.task == "segmentation" else info.size
    image = np.random.default_rng(0).random((1, 3, *size), np.float32)
    with torch.no_grad():
        expected = Exported(model, info.task)(torch.from_numpy(image)).numpy()
    to_onnx(model, size, tmp_path / "m.onnx", opset=20, ir_version=10, task=info.task)
    to_tflite(model, size, tmp_path / "m.tflite", task=info.task)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [output.name for output in session.get_outputs()] == [OUTPUTS[info.task]]
    for found in (session.run(None, {"image": image})[0], run(tmp_path / "m.tflite", image)):
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() <= 1e-6
        if info.task == "segmentation":
            assert ((found >= 0.5) == (expected >= 0.5)).mean() >= 0.999
        else:
            assert found.shape == (1, info.classes) and found.sum() == pytest.approx(1, abs=1e-5)
            assert found.argmax() == expected.argmax()


@pytest.mark.parametrize("name", ["vim-2d-nano", "resnet9"])
def test_a_classifier_of_other_classes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, size = build(name, classes=7).eval(), MODELS[name].size
    image = np.random.default_rng(1).random((1, 3, *size), np.float32)
    to_onnx(model, size, tmp_path / "m.onnx", opset=18, ir_version=9, negative_pads=False, task="classification")
    (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"image": image})
    with torch.no_grad():
        np.testing.assert_allclose(found, torch.softmax(model(torch.from_numpy(image)), 1).numpy(), atol=1e-6)
