"""Reading and editing ONNX graphs: what every pass and precision stage shares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def initializers(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Constants by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Nodes that read each tensor, in graph order (a node that reads it twice appears twice)."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def tensor_types(model: onnx.ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Element type and static shape of every tensor, by shape inference (tensors it cannot type are
    absent)."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types: dict[str, tuple[int, tuple[int, ...]]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            types[value.name] = (tensor.elem_type, tuple(dim.dim_value for dim in tensor.shape.dim))
    for constant in graph.initializer:
        types[constant.name] = (constant.data_type, tuple(constant.dims))
    return types


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make ``nodes`` the graph's nodes, in this order."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def substitute(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Let every reader of a key read the value instead (chains are followed)."""

    def final(name: str) -> str:
        while name in names:
            name = names[name]
        return name

    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in names:
                node.input[index] = final(name)


def add_initializer(graph: onnx.GraphProto, name: str, value: Any) -> str:
    """Add a constant and return its name."""
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def facts(model: onnx.ModelProto) -> dict[str, Any]:
    """Counts and sizes: nodes, operators, bytes of the file and of its constants, opset, IR version."""
    operators: dict[str, int] = {}
    for node in model.graph.node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    return {
        "nodes": len(model.graph.node),
        "operators": dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        "bytes": model.ByteSize(),
        "weight_bytes": sum(map(tensor_bytes, model.graph.initializer)),
        "opset": max(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")),
        "ir_version": model.ir_version,
    }


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a constant's values."""
    return int(numpy_helper.to_array(tensor).nbytes)
