"""The int8 stage for ONNX: which nodes, by which quantizer, checked; and how the two quantizers compare.

Convolutions and projections become int8. What stays float by rule: the scan with its decays and step sizes,
norms, the attention bridge, resizes, the last convolution and the sigmoid. Measured on UL-VM-UNet the norms
and the head are what static int8 destroys; an int8 state keeps 4 to 28 dB.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemamba.errors import Unsupported, require
from edgemamba.files import write_bytes

if TYPE_CHECKING:
    import onnx

    from edgemamba.registry import Task
    from edgemamba.stages.calibration import CalibrationSet
    from edgemamba.stages.plan import QuantizerChoice, QuantizerName
    from edgemamba.stages.quantizers import Ranges

INT8_GROUPS = ("conv", "projection")


def int8_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that become int8.

    Raises:
        Unsupported: there are none (the tools take an empty list for "everything").
    """
    from edgemamba.stages.onnx_groups import constant_matrices, group_nodes, weight

    groups = group_nodes(model)
    matrices = constant_matrices(model.graph)
    nodes = [node.name for node in model.graph.node if groups[node.name] in INT8_GROUPS and weight(node, matrices)]
    if not nodes:
        raise Unsupported("no convolution or projection of this graph may become int8", hint="use --precision fp16")
    return nodes


def to_int8(
    path: Path, calibration: CalibrationSet, out: Path, *, quantizer: QuantizerChoice, task: Task
) -> dict[str, Any]:
    """Quantize a clean fp32 graph to ``out``.

    Returns:
        Facts of the graph, the quantizer that was taken, counts per group, and what calibrated it.

    Raises:
        MissingDependency: onnxruntime or nncf is not installed.
        InputError: the float network gives nothing on the calibration images that a range could be found from.
        Unsupported: no node may become int8.
        VerificationError: the quantizer left a node out, or the result breaks the Q/DQ form.
    """
    require("onnxruntime", "onnx")
    import onnx

    from edgemamba.stages.onnx_graph import facts
    from edgemamba.stages.onnx_passes import strip

    model = onnx.load(path)
    graph, counts = quantize(model, calibration, quantizer=quantizer, task=task)
    strip(graph)
    onnx.checker.check_model(graph, full_check=True)
    write_bytes(out, graph.SerializeToString(deterministic=True))
    return {
        **facts(graph),
        **counts,
        "calibration": calibration.as_document(),
    }


def quantize(
    model: onnx.ModelProto, calibration: CalibrationSet, *, quantizer: QuantizerChoice, task: Task
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Quantize in memory; see ``to_int8``.

    Of several graphs (``auto`` tries every quantizer, and biases may be corrected or not) the one whose outputs are
    nearest to the float network's on the calibration images is taken.
    """
    from edgemamba.stages.onnx_graph import initializers
    from edgemamba.stages.onnx_groups import group_nodes
    from edgemamba.stages.qdq import check_form, weight_position
    from edgemamba.stages.quantizers import activation_ranges, nearest

    nodes = int8_nodes(model)
    wanted = set(nodes)
    constants = initializers(model.graph)
    tensors = [node.input[1 - weight_position(node, constants)] for node in model.graph.node if node.name in wanted]
    ranges = activation_ranges(model, tensors, calibration, task)
    names: tuple[QuantizerName, ...] = ("nncf", "ort") if quantizer == "auto" else (quantizer,)
    candidates = [one for name in names for one in _graphs(name, model, nodes, ranges, calibration)]
    number = nearest(model, [graph for graph, _ in candidates], calibration) if len(candidates) > 1 else 0
    graph, about = candidates[number]
    form = check_form(graph)
    groups = group_nodes(model)
    kept = Counter(groups[node.name] for node in model.graph.node if node.name not in wanted)
    return graph, {**form, **about, "float_nodes": dict(sorted(kept.items()))}


def _graphs(
    quantizer: QuantizerName,
    model: onnx.ModelProto,
    nodes: list[str],
    ranges: Ranges,
    calibration: CalibrationSet,
) -> list[tuple[onnx.ModelProto, dict[str, str]]]:
    """What one quantizer makes of the graph, with what to say of it.

    A quantizer corrects biases layer by layer. On some networks that is the better graph, on others (ResNet-18
    segmenting: mask Dice 0.95 with, 0.99 without) it adds up to a shift: both are offered.
    """
    from edgemamba.errors import VerificationError
    from edgemamba.stages.qdq import insert
    from edgemamba.stages.quantizers import BACKENDS

    scales = BACKENDS[quantizer](model, nodes, ranges, calibration)
    left_out = [name for name in nodes if name not in scales]
    if left_out:
        raise VerificationError(
            f"{quantizer} left {len(left_out)} of {len(nodes)} nodes float: {', '.join(left_out[:5])}",
            hint="the other --quantizer",
        )
    if all(found.bias is None for found in scales.values()):
        return [(insert(model, scales), {"quantizer": quantizer, "bias_correction": "none"})]
    plain = {name: dataclasses.replace(found, bias=None) for name, found in scales.items()}
    return [
        (insert(model, scales), {"quantizer": quantizer, "bias_correction": "kept"}),
        (insert(model, plain), {"quantizer": quantizer, "bias_correction": "dropped"}),
    ]
