"""The typed graph: the right type at every node, nothing mixed, and masks that do not move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgemamba.errors import Unsupported
from edgemamba.sources import TrainedSource
from edgemamba.stages.artifact import Artifact, open_artifact
from edgemamba.stages.calibration import ImageSet
from edgemamba.stages.fp16 import to_fp16, typed_inputs, write_fp16
from edgemamba.stages.onnx_graph import initializers, tensor_types
from edgemamba.stages.onnx_groups import group_nodes
from edgemamba.stages.verify import verify

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def node_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type each node computes in; fails where its operands differ."""
    types = tensor_types(model)
    found = {}
    for node in model.graph.node:
        if node.op_type == "Cast":
            continue
        seen = {types[node.input[i]][0] for i in typed_inputs(node)} | {types[name][0] for name in node.output}
        operands = seen & {HALF, FLOAT}
        assert len(operands) == 1, (node.name, seen)
        found[node.name] = operands.pop()
    return found


def test_every_node_has_the_type_of_its_group(graph: onnx.ModelProto) -> None:
    groups = group_nodes(graph)
    typed, facts = to_fp16(graph)
    onnx.checker.check_model(typed, full_check=True)
    types = node_types(typed)
    assert set(types) == set(groups)
    weighted = {node.name for node in graph.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")}
    for name, group in groups.items():
        if group in ("scan", "norm", "head"):
            assert types[name] == FLOAT, name
        elif name in weighted:
            assert types[name] == HALF, name
    assert facts["half_nodes"] == sum(kind == HALF for kind in types.values())


def test_inputs_and_outputs_stay_float32(graph: onnx.ModelProto) -> None:
    typed, _ = to_fp16(graph)
    for value in (*typed.graph.input, *typed.graph.output):
        assert value.type.tensor_type.elem_type == FLOAT


def test_no_cast_is_wasted(graph: onnx.ModelProto) -> None:
    typed, facts = to_fp16(graph)
    casts = [node for node in typed.graph.node if node.op_type == "Cast"]
    assert len(casts) == facts["casts"]
    assert len({node.input[0] for node in casts}) == len(casts), "two casts of one tensor"
    written = {node.output[0] for node in casts}
    assert not [node.name for node in casts if node.input[0] in written], "a cast of a cast"
    read = {name for node in typed.graph.node for name in node.input}
    assert written <= read
    # Casting around each weighted node alone would take two each.
    weighted = sum(kind == HALF for kind in node_types(typed).values())
    assert len(casts) < 2 * weighted


def test_half_the_weight_bytes(graph: onnx.ModelProto, fp32: Artifact) -> None:
    _, facts = to_fp16(graph)
    assert facts["weight_bytes"] < 0.6 * fp32.facts["weight_bytes"]
    assert facts["bytes"] < fp32.facts["bytes"]


def test_masks_hold(fp32: Artifact, source: TrainedSource, images: ImageSet, tmp_path: Path) -> None:
    facts = write_fp16(fp32.path, tmp_path / "half.onnx")
    artifact = open_artifact(tmp_path / "half.onnx", "onnx", "fp16", facts)
    numbers = verify(artifact, source, images, "fp16")
    assert numbers["foreground_images"] > 5
    assert numbers["mask_dice"] >= 0.999


def test_weight_out_of_range_is_refused(graph: onnx.ModelProto, tmp_path: Path) -> None:
    weight = initializers(graph.graph)["encoder2.0.weight"]
    value = numpy_helper.to_array(weight).copy()
    value[0, 0, 0, 0] = 1e6
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    onnx.save(graph, tmp_path / "large.onnx")
    with pytest.raises(Unsupported, match=r"encoder2\.0\.weight holds 1e\+06"):
        write_fp16(tmp_path / "large.onnx", tmp_path / "half.onnx")
    assert not (tmp_path / "half.onnx").exists()


def test_not_a_number_is_refused(graph: onnx.ModelProto) -> None:
    weight = initializers(graph.graph)["encoder2.0.weight"]
    weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, np.nan, np.float32), weight.name))
    with pytest.raises(Unsupported, match="holds nan"):
        to_fp16(graph)
