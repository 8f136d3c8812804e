"""The strongly typed fp16 graph: convolutions and projections float16, what needs range or resolution
float32.

TensorRT 11 has no precision flags: the precision of every operator is the type of its tensors. So each node
is given a type, constants follow their node, and a Cast stands wherever two types meet. Decays close to one
lose their resolution in float16 (a decay of 0.9998 becomes 1), so the scan, its step sizes and the norms
stay float32, as do the sums and the head. Inputs and outputs stay float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemamba.errors import Unsupported
from edgemamba.files import write_bytes
from edgemamba.stages.min_cut import INFINITE, FlowNetwork
from edgemamba.stages.onnx_graph import facts, initializers, replace_nodes, tensor_types
from edgemamba.stages.onnx_groups import Group, group_nodes

HALF_GROUPS = ("conv", "projection", "gate", "attention")
FLOAT_GROUPS = ("scan", "norm", "head")
_WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
# float16 sums over a whole map lose their last digits, whatever the group.
_FLOAT_OPERATORS = ("ReduceMean", "ReduceSum", "GlobalAveragePool", "Softmax", "Exp", "Softplus", "Log")
_MAX_HALF = 65504.0


def to_fp16(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Give every node of a clean float32 graph its type.

    Returns:
        The typed graph, and facts: counts by type and group, casts, weights that round to zero.

    Raises:
        Unsupported: a weight is out of float16's range.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    wires = _Wires(result)
    half = _assign(result.graph, wires, group_nodes(model))
    flushed = _convert_constants(result.graph, half)
    casts = _insert_casts(result.graph, half, wires)
    groups = group_nodes(model)
    return result, {
        **facts(result),
        "casts": casts,
        "half_nodes": len(half),
        "half_by_group": dict(sorted(Counter(groups[name] for name in half).items())),
        "weights_rounded_to_zero": flushed,
    }


def write_fp16(path: Path, out: Path) -> dict[str, Any]:
    """``to_fp16`` from file to file.

    Raises:
        Unsupported: a weight is out of float16's range, or the typed graph is not valid.
    """
    graph, found = to_fp16(onnx.load(path))
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Unsupported(f"the typed graph is not valid ONNX: {' '.join(str(error).split())[:300]}") from None
    write_bytes(out, graph.SerializeToString(deterministic=True))
    return found


class _Wires:
    """Who writes and who reads each float tensor that is computed, not constant."""

    def __init__(self, model: onnx.ModelProto) -> None:
        types = tensor_types(model)
        constants = initializers(model.graph)
        self.writer: dict[str, str] = {}
        self.readers: dict[str, set[str]] = {}
        self.touched: dict[str, set[str]] = {}
        for node in model.graph.node:
            inputs = [node.input[i] for i in typed_inputs(node)]
            for name in (*inputs, *node.output):
                if name not in constants and name in types and types[name][0] == TensorProto.FLOAT:
                    self.touched.setdefault(node.name, set()).add(name)
                    if name in node.output:
                        self.writer[name] = node.name
                    else:
                        self.readers.setdefault(name, set()).add(node.name)
        self.outputs = {value.name for value in model.graph.output}

    def tensors(self) -> list[str]:
        """Every tensor, once."""
        return list(dict.fromkeys([*self.readers, *self.writer]))

    def crosses(self, name: str, half: set[str]) -> bool:
        """Whether a Cast is needed behind tensor ``name``."""
        written_half = self.writer.get(name) in half
        read = {reader in half for reader in self.readers.get(name, ())}
        if name in self.outputs:
            read.add(False)
        return (not written_half) in read


def typed_inputs(node: onnx.NodeProto) -> list[int]:
    """Positions of the inputs that share the node's element type (Resize keeps its scales float32)."""
    return [i for i, name in enumerate(node.input) if name and not (node.op_type == "Resize" and i > 0)]


def _assign(graph: onnx.GraphProto, wires: _Wires, groups: dict[str, Group]) -> set[str]:
    """Names of the nodes that compute in float16: the fixed ones, and those that spare casts.

    Every cast has the same price, so the cheapest choice for the nodes that need neither type is a smallest
    cut between the float32 and the float16 nodes. Of equal choices the one with most float16 nodes: it
    moves fewer bytes.
    """
    network = FlowNetwork()
    float32, float16 = "float32", "float16"
    for node in graph.node:
        group = groups[node.name]
        if group in FLOAT_GROUPS or node.op_type in _FLOAT_OPERATORS:
            network.add(float32, ("node", node.name), INFINITE)
        elif group in HALF_GROUPS and node.op_type in _WEIGHTED:
            network.add(("node", node.name), float16, INFINITE)
    for name in wires.tensors():
        # One cast serves all readers: a unit of capacity per tensor and direction, shared by two helper nodes.
        writer = ("node", wires.writer[name]) if name in wires.writer else float32
        readers: list[Hashable] = [("node", reader) for reader in wires.readers.get(name, ())]
        if name in wires.outputs:
            readers.append(float32)
        network.add(writer, ("down", name), 1)
        network.add(("up", name), writer, 1)
        for reader in readers:
            network.add(("down", name), reader, INFINITE)
            network.add(reader, ("up", name), INFINITE)
    _, single = network.source_side(float32, float16)
    return {node.name for node in graph.node if node.name in wires.touched and ("node", node.name) not in single}


def _convert_constants(graph: onnx.GraphProto, half: set[str]) -> int:
    """Give half nodes float16 copies of their constants; returns how many weights round to zero."""
    known = initializers(graph)
    copies: dict[str, str] = {}
    flushed = 0
    for node in graph.node:
        for index in typed_inputs(node) if node.name in half else ():
            name = node.input[index]
            if name not in known or known[name].data_type != TensorProto.FLOAT:
                continue
            if name not in copies:
                value = numpy_helper.to_array(known[name])
                largest = float(np.abs(value).max(initial=0.0))
                if not largest <= _MAX_HALF:
                    raise Unsupported(
                        f"{name} holds {largest:g}, float16 ends at {_MAX_HALF:g}",
                        hint="export with --precision fp32",
                    )
                rounded = value.astype(np.float16)
                flushed += int(((rounded == 0) & (value != 0)).sum())
                copies[name] = f"{name}.half"
                graph.initializer.append(numpy_helper.from_array(rounded, copies[name]))
            node.input[index] = copies[name]
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return flushed


def _insert_casts(graph: onnx.GraphProto, half: set[str], wires: _Wires) -> int:
    """One Cast behind each tensor that is read in the type it is not written in."""
    renamed = {name: f"{name}.cast" for name in wires.tensors() if wires.crosses(name, half)}
    ordered: list[onnx.NodeProto] = []

    def cast(name: str) -> None:
        to = TensorProto.FLOAT if wires.writer.get(name) in half else TensorProto.FLOAT16
        ordered.append(helper.make_node("Cast", [name], [renamed[name]], name=f"Cast/{name}", to=to))

    for value in graph.input:
        if value.name in renamed:
            cast(value.name)
    for node in graph.node:
        ordered.append(node)
        for index in typed_inputs(node):
            name = node.input[index]
            if name in renamed and (node.name in half) != (wires.writer.get(name) in half):
                node.input[index] = renamed[name]
        for name in node.output:
            if name in renamed:
                cast(name)
    replace_nodes(graph, ordered)
    return len(renamed)
