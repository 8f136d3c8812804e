"""The exported graph: what it may hold, what it must not, and that it computes what PyTorch computes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import fresh
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from edgemamba.errors import Unsupported
from edgemamba.models import SegmentationModel
from edgemamba.sources import TrainedSource
from edgemamba.stages.artifact import Artifact
from edgemamba.stages.onnx_groups import group_nodes
from edgemamba.stages.to_onnx import check_graph, to_onnx

ALLOWED = {
    "Abs",
    "Add",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Exp",
    "Gather",
    "Gelu",
    "Gemm",
    "InstanceNormalization",
    "LayerNormalization",
    "Log",
    "MatMul",
    "MaxPool",
    "Mul",
    "Neg",
    "Pad",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Split",
    "Transpose",
}


def export(name: str, size: int, path: Path) -> tuple[SegmentationModel, onnx.ModelProto]:
    model = fresh(name)
    to_onnx(model, (size, size), path, opset=20, ir_version=10)
    return model, onnx.load(path)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": one[None]})[0] for one in x])


@pytest.mark.parametrize("name", ["ul-vm-unet", "ul-vm-unet-v1", "ul-vm-unet-v2", "ul-vm-unet-v6", "unet"])
def test_graph_is_standard_static_and_equal(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model, graph = export(name, 64, path)
    onnx.checker.check_model(graph, full_check=True)
    assert {node.op_type for node in graph.graph.node} <= ALLOWED
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 20)]
    assert graph.ir_version <= 10
    (image,), (probability,) = graph.graph.input, graph.graph.output
    shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in (image, probability)]
    assert shapes == [[1, 3, 64, 64], [1, 1, 64, 64]]
    assert {value.type.tensor_type.elem_type for value in (image, probability)} == {TensorProto.FLOAT}
    x = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    with torch.inference_mode():
        expected = torch.sigmoid(model(torch.from_numpy(x))).numpy()
    np.testing.assert_allclose(run(path, x), expected, atol=2e-5)


def test_full_size_stays_within_its_limits(tmp_path: Path) -> None:
    _, graph = export("ul-vm-unet", 256, tmp_path / "model.onnx")
    assert len(graph.graph.node) <= 1500
    assert (tmp_path / "model.onnx").stat().st_size <= 500_000


def test_nothing_of_the_build_machine_is_left(graph: onnx.ModelProto, fp32: Artifact) -> None:
    data = fp32.path.read_bytes()
    for text in (b"/work", b"/home", b"/root", b".py", b"site-packages", b"stack_trace", b"torch", b"Users"):
        assert text not in data
    assert not graph.metadata_props and not graph.graph.value_info and not graph.doc_string
    assert all(not node.doc_string and not node.metadata_props for node in graph.graph.node)


def test_names_say_where_a_node_comes_from_and_cannot_collide(graph: onnx.ModelProto) -> None:
    nodes = [node.name for node in graph.graph.node]
    assert len(set(nodes)) == len(nodes)
    assert any(re.fullmatch(r"encoder4\.0/mamba/MatMul\.\d+", name) for name in nodes)
    tensors = [name for node in graph.graph.node for name in node.output]
    constants = [tensor.name for tensor in graph.graph.initializer]
    assert len({*tensors, *constants}) == len(tensors) + len(constants)
    assert not [name for name in (*tensors, *constants) if name[-1].isdigit()]
    assert {"encoder1.0.weight", "encoder4.0.mamba.in_proj.weight", "final.bias"} <= set(constants)


def test_constants_are_folded(graph: onnx.ModelProto) -> None:
    constants = {tensor.name for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        assert not all(name in constants for name in node.input if name), node.name
    rates = [t for t in graph.graph.initializer if t.name.startswith("encoder4.0.mamba.A_log")]
    assert not rates or all((numpy_helper.to_array(t) < 0).all() for t in rates)


def test_export_is_reproducible(source: TrainedSource, fp32: Artifact, tmp_path: Path) -> None:
    to_onnx(source.build(), source.size, tmp_path / "again.onnx", opset=20, ir_version=10)
    assert (tmp_path / "again.onnx").read_bytes() == fp32.path.read_bytes()


def test_every_node_has_a_group(graph: onnx.ModelProto) -> None:
    groups = group_nodes(graph)
    by_group = {group: [name for name, found in groups.items() if found == group] for group in set(groups.values())}
    assert len(by_group["conv"]) == 5
    # in_proj, x_proj, out_proj and the layer's own projection, six layers.
    assert len(by_group["projection"]) == 24
    assert {name.split("/")[0] for name in by_group["attention"]} == {"scab"}
    assert {name.split(".")[0].split("/")[-1] for name in by_group["head"]} == {"Conv", "Resize", "Sigmoid"}
    exponentials = [node.name for node in graph.graph.node if node.op_type == "Exp"]
    assert exponentials and set(exponentials) <= set(by_group["scan"])


class Odd(SegmentationModel):
    """A layer without an ONNX counterpart."""

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return torch.linalg.matrix_exp(x)[:, :1], []


def test_layer_without_counterpart_is_one_clear_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Unsupported, match="cannot be exported to ONNX") as caught:
        to_onnx(Odd(), (32, 32), tmp_path / "odd.onnx", opset=20, ir_version=10)
    assert "\n" not in caught.value.message and caught.value.hint
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().out == ""


def tiny(
    nodes: list[onnx.NodeProto], *, ir: int = 9, opset: int = 20, height: int = 4, domain: str = ""
) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height or "h", 4])
    probability = helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1, 3, height or "h", 4])
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(
        helper.make_graph(nodes, "main", [image], [probability]), ir_version=ir, opset_imports=opsets
    )


SIGMOID = helper.make_node("Sigmoid", ["image"], ["probability"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (tiny([SIGMOID], ir=11), "IR version 11"),
        (tiny([SIGMOID], opset=21), "opset 21"),
        (tiny([SIGMOID], height=0), "no static shape"),
        (tiny([helper.make_node("Softplus", ["image"], ["probability"])]), "holds Softplus"),
        (tiny([helper.make_node("Sig", ["image"], ["probability"], domain="own")], domain="own"), "domain 'own'"),
        (tiny([helper.make_node("Sigmoid", ["missing"], ["probability"])]), "not valid ONNX"),
    ],
)
def test_graph_that_breaks_a_rule_is_refused(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        check_graph(model, opset=20, ir_version=10)
    check_graph(tiny([SIGMOID]), opset=20, ir_version=10)
