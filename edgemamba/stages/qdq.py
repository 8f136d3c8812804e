"""The one Q/DQ form of every int8 graph, whichever tool found its numbers.

TensorRT takes int8 only as explicit QuantizeLinear / DequantizeLinear pairs that are symmetric (zero point
0): one scale for an activation, one scale per output channel for a weight, float biases. It refuses
non-zero zero points and int32 biases behind DequantizeLinear, and documents uint8 for network inputs only.
ONNX Runtime runs the same form. So the numbers a quantizer found are read from its graph (``read``) and
written into the clean float graph (``insert``); nothing else of the quantizer's graph is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemamba.errors import VerificationError
from edgemamba.stages.onnx_graph import add_initializer, attributes, initializers, replace_nodes
from edgemamba.stages.onnx_groups import GROUPS, PRODUCTS, Group, group_nodes

FLOAT_GROUPS: tuple[Group, ...] = ("head", "attention", "norm", "scan", "gate")
# What hands values on unchanged: a scale found above holds below.
_MOVEMENT = (
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Split",
    "Slice",
    "Pad",
    "Gather",
    "MaxPool",
    "Identity",
)
_LEVELS = 127


@dataclasses.dataclass(frozen=True)
class NodeScales:
    """What a quantizer found for one weighted node.

    Attributes:
        activation: scale of its activation.
        bias: corrected float bias, or None to keep the node's own.
    """

    activation: float
    bias: npt.NDArray[np.float32] | None = None


def weight_axis(node: onnx.NodeProto, position: int, rank: int) -> int:
    """Axis of the output channels of a weight that is input ``position`` of ``node``."""
    if node.op_type in PRODUCTS:
        transposed = bool(attributes(node).get("transB" if position else "transA", 0))
        return rank - 2 if (position == 0) != transposed else rank - 1
    return 0 if node.op_type == "Conv" else 1


def weight_position(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> int:
    """Which of the first two inputs of a weighted node is the constant."""
    return 0 if node.input[0] in constants else 1


def read(quantized: onnx.ModelProto, original: onnx.ModelProto, nodes: Iterable[str]) -> dict[str, NodeScales]:
    """Collect what a quantizer decided for ``nodes``, in symmetric int8; nodes it left float are absent.

    Raises:
        VerificationError: an activation has a zero point that a symmetric scale cannot express.
    """
    writers = {name: node for node in quantized.graph.node for name in node.output}
    constants = initializers(quantized.graph)
    floats = initializers(original.graph)
    originals = {node.name: node for node in original.graph.node}
    wanted = set(nodes)
    found: dict[str, NodeScales] = {}
    for node in quantized.graph.node:
        if node.name not in wanted:
            continue
        before = originals[node.name]
        position = weight_position(before, floats)
        activation = _activation_scale(node.input[1 - position], writers, constants)
        if activation is None or not is_dequantized(node.input[position], writers):
            continue
        bias = None
        if len(node.input) > 2 and node.op_type not in PRODUCTS:
            corrected = numpy_helper.to_array(constants[node.input[2]])
            if not np.array_equal(corrected, numpy_helper.to_array(floats[before.input[2]])):
                bias = corrected
        found[node.name] = NodeScales(activation, bias)
    return found


def _dequantize(name: str, writers: dict[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """The DequantizeLinear whose values reach tensor ``name`` unchanged."""
    while name in writers:
        node = writers[name]
        if node.op_type == "DequantizeLinear":
            return node
        if node.op_type not in _MOVEMENT:
            return None
        name = node.input[0]
    return None


def _activation_scale(
    name: str, writers: dict[str, onnx.NodeProto], constants: dict[str, onnx.TensorProto]
) -> float | None:
    node = _dequantize(name, writers)
    if node is None:
        return None
    scale = float(numpy_helper.to_array(constants[node.input[1]]).reshape(-1)[0])
    zero = numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 else np.zeros(1, np.uint8)
    if zero.any():
        raise VerificationError(
            f"the quantizer gave {name} the zero point {int(zero.reshape(-1)[0])}, TensorRT takes 0 only",
            hint="report this with the model: the quantizer was asked for symmetric activations",
        )
    # uint8 with zero point 0 spans 0 .. 255 steps; int8 spans the same range in 127.
    return scale * (255.0 / _LEVELS if zero.dtype == np.uint8 else 1.0)


def quantize_weight(weight: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Symmetric int8 in -127 .. 127: the largest magnitude of each channel of ``axis`` is 127 steps.

    Both quantizers do the same; NNCF 3.4, however, takes the inner axis where the weight is MatMul's first
    operand.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / _LEVELS, 1.0).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale.reshape(-1)


def insert(model: onnx.ModelProto, scales: dict[str, NodeScales]) -> onnx.ModelProto:
    """Write Q/DQ around the inputs of the named nodes of a clean float graph; a pair is shared by equal
    readers."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = initializers(graph)
    zero = add_initializer(graph, "zero_point", np.array(0, np.int8))
    ordered: list[onnx.NodeProto] = []
    pairs: dict[tuple[str, float], str] = {}
    for node in graph.node:
        numbers = scales.get(node.name)
        if numbers is not None:
            position = weight_position(node, constants)
            name = node.input[1 - position]
            key = (name, numbers.activation)
            if key not in pairs:
                pairs[key] = _pair(graph, ordered, name, numbers.activation, zero, len(pairs))
            node.input[1 - position] = pairs[key]
            node.input[position] = _weight_dq(graph, ordered, node, position, constants)
            if numbers.bias is not None:
                node.input[2] = add_initializer(graph, f"{node.input[2]}.corrected", numbers.bias)
        ordered.append(node)
    replace_nodes(graph, ordered)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return result


def _pair(
    graph: onnx.GraphProto, ordered: list[onnx.NodeProto], name: str, scale: float, zero: str, number: int
) -> str:
    step = add_initializer(graph, f"q{number}.scale", np.array(scale, np.float32))
    quantized, restored = f"q{number}.int8_", f"q{number}.float_"
    ordered.append(
        helper.make_node("QuantizeLinear", [name, step, zero], [quantized], name=f"QuantizeLinear/q{number}")
    )
    ordered.append(
        helper.make_node("DequantizeLinear", [quantized, step, zero], [restored], name=f"DequantizeLinear/q{number}")
    )
    return restored


def _weight_dq(
    graph: onnx.GraphProto,
    ordered: list[onnx.NodeProto],
    node: onnx.NodeProto,
    position: int,
    constants: dict[str, onnx.TensorProto],
) -> str:
    name = node.input[position]
    value = numpy_helper.to_array(constants[name])
    axis = weight_axis(node, position, value.ndim)
    stored, scales = quantize_weight(value, axis)
    inputs = [
        add_initializer(graph, f"{name}.int8_", stored),
        add_initializer(graph, f"{name}.scale", scales),
        add_initializer(graph, f"{name}.zero_point", np.zeros(len(scales), np.int8)),
    ]
    output = f"{name}.float_"
    ordered.append(helper.make_node("DequantizeLinear", inputs, [output], name=f"DequantizeLinear/{name}", axis=axis))
    return output


def check_form(model: onnx.ModelProto) -> dict[str, Any]:
    """Hold an int8 graph to the form described above.

    Returns:
        pairs: Q/DQ pairs on activations; quantized: int8 nodes per group; float: weighted nodes left float
        per group.

    Raises:
        VerificationError: names every place that breaks the form.
    """
    constants = initializers(model.graph)
    writers = {name: node for node in model.graph.node for name in node.output}
    groups = group_nodes(model)
    faults: list[str] = []
    quantized = dict.fromkeys(GROUPS, 0)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            faults += _pair_faults(node, constants, writers)
            continue
        dequantized = [i for i, name in enumerate(node.input) if is_dequantized(name, writers)]
        if not dequantized:
            continue
        quantized[groups[node.name]] += 1
        if groups[node.name] in FLOAT_GROUPS or groups[node.name] == "other":
            faults.append(f"{node.name} of group {groups[node.name]} reads an int8 tensor")
        if dequantized != [0, 1]:
            faults.append(f"{node.name} has int8 at inputs {dequantized}, expected activation and weight only")
        for position in dequantized:
            faults += _weight_faults(node, position, writers[node.input[position]], constants)
    if faults:
        raise VerificationError(
            f"the int8 graph breaks the Q/DQ form: {'; '.join(faults)}", hint="report this with the model"
        )
    return {
        "pairs": sum(node.op_type == "QuantizeLinear" for node in model.graph.node),
        "quantized": {group: count for group, count in quantized.items() if count},
    }


def is_dequantized(name: str, writers: dict[str, onnx.NodeProto]) -> bool:
    """Whether a DequantizeLinear writes tensor ``name``."""
    return name in writers and writers[name].op_type == "DequantizeLinear"


def _pair_faults(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], writers: dict[str, onnx.NodeProto]
) -> list[str]:
    faults = []
    if node.domain not in ("", "ai.onnx"):
        faults.append(f"{node.name} is of the domain {node.domain}")
    if len(node.input) != 3 or not all(name in constants for name in node.input[1:]):
        return [*faults, f"{node.name} has no constant scale and zero point"]
    scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
    if zero.dtype != np.int8 or zero.any():
        faults.append(f"{node.name} has a zero point that is not int8 0")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        faults.append(f"{node.name} has a scale that is not positive")
    if node.op_type == "DequantizeLinear":
        source = node.input[0]
        if source in constants:
            if constants[source].data_type != TensorProto.INT8:
                faults.append(f"{node.name} restores a constant that is not int8")
        elif source not in writers or writers[source].op_type != "QuantizeLinear":
            faults.append(f"{node.name} restores what no QuantizeLinear wrote")
        elif writers[source].input[1] != node.input[1]:
            faults.append(f"{node.name} has another scale than its QuantizeLinear")
    return faults


def _weight_faults(
    node: onnx.NodeProto, position: int, dequantize: onnx.NodeProto, constants: dict[str, onnx.TensorProto]
) -> list[str]:
    stored = constants.get(dequantize.input[0])
    scale = constants[dequantize.input[1]]
    if stored is None:
        return [] if not scale.dims else [f"{dequantize.name}: an activation has more than one scale"]
    axis = weight_axis(node, position, len(stored.dims))
    if list(scale.dims) != [stored.dims[axis]] or attributes(dequantize).get("axis", 1) != axis:
        return [f"{dequantize.name}: the scales of {node.op_type} do not follow axis {axis}"]
    return []
