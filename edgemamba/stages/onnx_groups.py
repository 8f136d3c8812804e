"""Which part of the network each node of a clean graph belongs to: how precision stages address nodes.

The first rule that fits decides. Rules look at the operator, at the module path that ``onnx_graph.rename``
put into the node's name, and at the name of the weight it reads; module names are those of the published
checkpoints.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

import onnx

# gate: what of a Mamba block does not depend on its state: conv1d, SiLU and the D skip.
Group = Literal["head", "attention", "norm", "projection", "scan", "gate", "conv", "other"]
GROUPS: tuple[Group, ...] = get_args(Group)

_NORM_OPERATORS = ("InstanceNormalization", "LayerNormalization", "GroupNormalization", "BatchNormalization")
_NORM_SCOPE = re.compile(r"(^|/)([ed]bn\d+|norm)(_\d+)?$")
_ATTENTION_SCOPE = re.compile(r"(^|/)scab(/|$)")
_MAMBA_SCOPE = re.compile(r"(^|/)mamba(/|$)")
# dt_proj sets the decay of the state: it belongs to the scan.
_X_PROJECTION = re.compile(r"\bx_proj\.weight")
_MAMBA_PROJECTION = re.compile(r"\b(in_proj|x_proj|out_proj)\.weight")
CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = ("MatMul", "Gemm")


def scope(node: onnx.NodeProto) -> str:
    """Module path of a node: ``encoder4.0/mamba`` of ``encoder4.0/mamba/Mul.12``."""
    return node.name.rpartition("/")[0]


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
    matrices = constant_matrices(model.graph)
    head = _head(model.graph)
    groups: dict[str, Group] = {}
    # Tensors of a Mamba block that depend on its x_proj, which is where the state space begins.
    stateful: set[str] = set()
    for node in model.graph.node:
        group = "head" if node.name in head else _group(node, matrices)
        groups[node.name] = group
        if _X_PROJECTION.search(weight(node, matrices)) or (group == "gate" and stateful.intersection(node.input)):
            stateful.update(node.output)
            groups[node.name] = "scan" if group == "gate" else group
    return groups


def _group(node: onnx.NodeProto, matrices: set[str]) -> Group:
    path = scope(node)
    matrix = weight(node, matrices)
    if _ATTENTION_SCOPE.search(path):
        return "attention"
    if node.op_type in _NORM_OPERATORS or _NORM_SCOPE.search(path):
        return "norm"
    if _MAMBA_SCOPE.search(path):
        return "projection" if _MAMBA_PROJECTION.search(matrix) else "gate"
    if matrix and node.op_type in PRODUCTS:
        return "projection"
    return "conv" if node.op_type in CONVOLUTIONS else "other"


def _head(graph: onnx.GraphProto) -> set[str]:
    """Names of the last convolution and of every node behind it."""
    writers = {name: node for node in graph.node for name in node.output}
    last = writers[graph.output[0].name]
    names = {last.name}
    node = last
    while node.op_type not in CONVOLUTIONS:
        if node.input[0] not in writers:
            return {last.name}
        node = writers[node.input[0]]
        names.add(node.name)
    return names
