"""What the graph alone tells about its nodes agrees with what their weights are called in the checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
import torch
from foreign import Tokens
from networks import fresh
from torch import Tensor, nn

from edgemamba.registry import MODELS
from edgemamba.stages import tflite_graph, tflite_quant
from edgemamba.stages.onnx_groups import constant_matrices, group_nodes, weight
from edgemamba.stages.to_onnx import to_onnx
from edgemamba.stages.to_tflite import to_tflite

# Part of a weight's name: what it must be; the first that fits.
NAMES = {
    r"dt_proj": "scan",
    r"conv1d|mixer\.conv2d": "gate",
    r"scab": "attention",
    r"^(final|head|fc|decoder\.seg_layers\.3|head\.predict|decoder\.6)\.weight": "head",
    r".": "int8",
}


def groups_of(path: Path) -> dict[str, list[str]]:
    """Groups of the nodes that read each named weight."""
    model = onnx.load(path)
    matrices, groups = constant_matrices(model.graph), group_nodes(model)
    found: dict[str, list[str]] = {}
    for node in model.graph.node:
        name = weight(node, matrices)
        if name:
            group = groups[node.name]
            found.setdefault(name, []).append("int8" if group in ("conv", "projection") else group)
    return found


@pytest.mark.parametrize("name", ["ul-vm-unet", "u-mamba-bot", "resnet18-seg", "segformer", "vim-2d-nano", "resnet9"])
def test_groups_are_those_of_the_weights_names(name: str, tmp_path: Path) -> None:
    info = MODELS[name]
    size = (64, 64) if info.task == "segmentation" else info.size
    to_onnx(fresh(name), size, tmp_path / "m.onnx", opset=20, ir_version=10, task=info.task)
    found = groups_of(tmp_path / "m.onnx")
    # Constants that the cleaning pass made have no name of the checkpoint.
    named = {key: groups for key, groups in found.items() if re.search(r"\.weight$", key)}
    assert len(named) > 5 and {group for groups in named.values() for group in groups} >= {"int8", "head"}
    for key, groups in named.items():
        expected = next(role for pattern, role in NAMES.items() if re.search(pattern, key))
        assert set(groups) == {expected}, key


@pytest.mark.parametrize("name", ["ul-vm-unet", "u-mamba-bot", "vim-2d-nano", "resnet9"])
def test_tflite_leaves_the_same_layers_float(name: str, tmp_path: Path) -> None:
    info = MODELS[name]
    size = (64, 64) if info.task == "segmentation" else info.size
    to_tflite(fresh(name), size, tmp_path / "m.tflite", task=info.task)
    model = tflite_graph.read(tmp_path / "m.tflite")
    chosen = {layer for layer, kind in tflite_quant.int8_layers(model).values() if kind not in ("MAX_POOL_2D",)}
    names = {layer for layer in tflite_quant._names(model) if not re.search(r"(^|\.)(_averages|matrix)", layer)}
    last = tflite_quant._structure(model).feeding()
    floats = names - chosen - ({tflite_quant._layer_name(model, last)} if last is not None else set())
    assert all(re.search(r"dt_proj|^scab|^(final|head|fc|decoder\.seg_layers\.3)$", layer) for layer in floats)
    assert len(floats & chosen) == 0 and len(chosen) > 5


class Gated(nn.Module):
    """Squeeze and excitation, SiLU and a gate of its own layer; the head is a product behind an average."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.value, self.gate = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.stem(x))
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = self.value(self.mix(x)) * torch.sigmoid(self.gate(x))
        return self.out(x.mean((2, 3)))


def test_gates_are_told_from_activations(tmp_path: Path) -> None:
    torch.manual_seed(0)
    to_onnx(Gated().eval(), (16, 16), tmp_path / "m.onnx", opset=20, ir_version=10, task="tensor")
    found = {key.removesuffix(".weight"): groups for key, groups in groups_of(tmp_path / "m.onnx").items()}
    assert found["stem"] == found["mix"] == found["value"] == ["int8"]
    assert found["squeeze"] == found["excite"] == found["gate"] == ["attention"]
    assert found["out"] == ["head"]


def test_the_layer_before_the_head_is_found_through_steps_of_one_input(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2, 2), nn.ReLU(), nn.Conv2d(4, 1, 1))
    to_tflite(net.eval(), (16, 16), tmp_path / "m.tflite")
    model = tflite_graph.read(tmp_path / "m.tflite")
    assert sorted(name for name, _ in tflite_quant.int8_layers(model).values()) == ["0"]


def test_written_out_norms_of_any_name_are_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    to_onnx(Tokens().eval(), (32, 32), tmp_path / "m.onnx", opset=20, ir_version=10, task="tensor")
    model = onnx.load(tmp_path / "m.onnx")
    groups = group_nodes(model)
    norms = {node.name for node in model.graph.node if groups[node.name] == "norm"}
    assert norms == {node.name for node in model.graph.node if re.match(r"norm[12]/", node.name)}
    assert {groups[n.name] for n in model.graph.node if n.op_type == "Softmax"} == {"other"}
