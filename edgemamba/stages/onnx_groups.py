"""Which part of the network each node of a clean graph belongs to: how precision stages address nodes.

What ``structure`` finds in the graph decides; what it leaves is a convolution, a projection or something else.
"""

from __future__ import annotations

from typing import Literal, get_args

import onnx

from edgemamba.stages.structure import Kind, Step, Structure

# gate: what of a Mamba block leads into its state space.
Group = Literal["head", "attention", "norm", "projection", "scan", "gate", "conv", "other"]
GROUPS: tuple[Group, ...] = get_args(Group)

CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = ("MatMul", "Gemm")
_KINDS: dict[str, Kind] = {
    "Exp": "exp",
    "Log": "log",
    "Softplus": "log",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
    **dict.fromkeys(("Mul", "MatMul", "Gemm"), "mul"),
    "Add": "add",
    "Sub": "add",
    "Split": "split",
    "Slice": "split",
    "Gather": "split",
    "ReduceMean": "mean",
    "GlobalAveragePool": "mean",
    "Sqrt": "root",
    **dict.fromkeys(
        ("InstanceNormalization", "LayerNormalization", "GroupNormalization", "BatchNormalization"), "norm"
    ),
    **dict.fromkeys(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"), "move"),
}


def weight(node: onnx.NodeProto, matrices: set[str]) -> str:
    """Name of the constant matrix (one of ``matrices``) a convolution or product reads; empty when it has
    none."""
    if node.op_type in (*CONVOLUTIONS, *PRODUCTS):
        return next((name for name in node.input[:2] if name in matrices), "")
    return ""


def constant_matrices(graph: onnx.GraphProto) -> set[str]:
    """Names of constants of at least two axes, float or restored from int8."""
    names = {tensor.name for tensor in graph.initializer if len(tensor.dims) >= 2}
    restored = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in names}
    return names | restored


def group_nodes(model: onnx.ModelProto) -> dict[str, Group]:
    """Group of every node, by node name."""
    graph = model.graph
    matrices = constant_matrices(graph)
    constants = {tensor.name for tensor in graph.initializer} | matrices
    steps = [
        Step(
            _KINDS.get(node.op_type, "other"),
            tuple(name for name in node.input if name and name not in constants),
            tuple(node.output),
            bool(weight(node, matrices)),
            node.op_type == "Conv" and _groups(node) > 1,
        )
        for node in graph.node
    ]
    roles = Structure(steps, graph.output[0].name).roles()
    return {node.name: roles.get(i) or _rest(node, matrices) for i, node in enumerate(graph.node)}


def _rest(node: onnx.NodeProto, matrices: set[str]) -> Group:
    if weight(node, matrices) and node.op_type in PRODUCTS:
        return "projection"
    return "conv" if node.op_type in CONVOLUTIONS else "other"


def _groups(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)
