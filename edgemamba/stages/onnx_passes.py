"""Cleaning of exported ONNX graphs: ordered passes, one function each, that never change what is computed.

Exporters leave shape arithmetic, constants as nodes, shared and unused tensors, build paths and names that
say nothing. After ``clean`` a graph holds only work: static shapes, every constant an initializer, each
node named by the module it came from, so that the precision stages can address groups of nodes
(``onnx_groups``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgemamba.stages.onnx_graph import (
    add_initializer,
    attributes,
    consumers,
    initializers,
    replace_nodes,
    substitute,
    tensor_bytes,
    tensor_types,
)

# Data movement on constants is folded unless it makes the file much larger (a broadcast, a tile).
_FOLD_GROWTH_BYTES = 4096
# The export wrapper holds the network as its attribute ``model``; exporters name parameters after it.
_PARAMETER = "model."


def clean(model: onnx.ModelProto, *, negative_pads: bool = True) -> onnx.ModelProto:
    """Run every pass of ``PASSES`` in order on a copy and return it; ``negative_pads``: they may stay."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for run in PASSES:
        if run is not slice_negative_pads or not negative_pads:
            run(result)
    return result


def constants_to_initializers(model: onnx.ModelProto) -> None:
    """Turn every Constant node into an initializer."""
    kept = []
    for node in model.graph.node:
        value = attributes(node).get("value") if node.op_type == "Constant" else None
        if value is None:
            kept.append(node)
            continue
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
    replace_nodes(model.graph, kept)


def fold_constants(model: onnx.ModelProto) -> None:
    """Replace Shape of a static tensor, and every node that reads only constants, by its value.

    This also removes ``A = -exp(A_log)`` from the graph: it is a constant once training is over. A constant
    made from a parameter keeps the parameter's name in its own.
    """
    graph = model.graph
    types = tensor_types(model)
    known = initializers(graph)
    aliases: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = aliases.get(name, name)
        folded = _fold(node, types, known, model.opset_import)
        if folded is None:
            kept.append(node)
            continue
        parameter = next((name for name in node.input if name.startswith(_PARAMETER)), "")
        for tensor in folded:
            if parameter:
                aliases[tensor.name] = f"{parameter}/{node.op_type}{len(aliases)}"
                tensor.name = aliases[tensor.name]
            known[tensor.name] = tensor
            graph.initializer.append(tensor)
    replace_nodes(graph, kept)


def _fold(
    node: onnx.NodeProto,
    types: dict[str, tuple[int, tuple[int, ...]]],
    known: dict[str, onnx.TensorProto],
    opsets: Iterable[onnx.OperatorSetIdProto],
) -> list[onnx.TensorProto] | None:
    """Values of the node's outputs, or None when they are not constant (or too large to store)."""
    inputs = [name for name in node.input if name]
    if node.op_type == "Shape" and inputs[0] in types:
        limits = attributes(node)
        shape = types[inputs[0]][1][limits.get("start", 0) : limits.get("end")]
        return [numpy_helper.from_array(np.array(shape, np.int64), node.output[0])]
    if not inputs or not all(name in known for name in inputs):
        return None
    folded = _evaluate(node, [known[name] for name in inputs], opsets)
    grown = sum(map(tensor_bytes, folded)) - sum(tensor_bytes(known[name]) for name in inputs)
    return folded if grown <= _FOLD_GROWTH_BYTES else None


def _evaluate(
    node: onnx.NodeProto, inputs: list[onnx.TensorProto], opsets: Iterable[onnx.OperatorSetIdProto]
) -> list[onnx.TensorProto]:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(node, opsets={opset.domain: opset.version for opset in opsets})
    values = evaluator.run(None, {tensor.name: numpy_helper.to_array(tensor) for tensor in inputs})
    return [
        numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in zip(node.output, values, strict=True)
        if name
    ]


def slice_negative_pads(model: onnx.ModelProto) -> None:
    """Cut with a Slice what a Pad cuts with negative pads, which TensorRT 10's parser refuses; 4 % slower on a CPU.

    Source: onnx-tensorrt, importerUtils.cpp, convertOnnxPadding.
    """
    graph = model.graph
    known = initializers(graph)
    kept = []
    for node in graph.node:
        pads = numpy_helper.to_array(known[node.input[1]]) if node.op_type == "Pad" else np.zeros(0, np.int64)
        if (pads < 0).any() and attributes(node).get("mode", b"constant") == b"constant":
            before, after = np.split(pads, 2)
            listed = len(node.input) > 3 and node.input[3]
            axes = numpy_helper.to_array(known[node.input[3]]) if listed else np.arange(len(before))
            cut = (before < 0) | (after < 0)
            ends = np.where(after < 0, after, np.iinfo(np.int64).max)
            limits = {"starts": np.maximum(-before, 0)[cut], "ends": ends[cut], "axes": axes[cut]}
            name = node.output[0]
            constants = [add_initializer(graph, f"{name}.{key}", value) for key, value in limits.items()]
            kept.append(
                helper.make_node("Slice", [node.input[0], *constants], [f"{name}.cut"], name=f"{node.name}.cut")
            )
            node.input[0], node.input[1] = (f"{name}.cut", add_initializer(graph, f"{name}.pads", np.maximum(pads, 0)))
        kept.append(node)
    replace_nodes(graph, kept)


_SAME_WHEN_UNCHANGED = {"Reshape", "Expand", "Cast", "Flatten", "Squeeze", "Unsqueeze"}


def drop_identities(model: onnx.ModelProto) -> None:
    """Remove nodes that hand their first input on unchanged."""
    graph = model.graph
    types = tensor_types(model)
    known = initializers(graph)
    outputs = {value.name for value in graph.output}
    aliases: dict[str, str] = {}
    kept = []
    for node in graph.node:
        if node.output[0] not in outputs and _is_identity(node, types, known):
            aliases[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    replace_nodes(graph, kept)
    substitute(graph, aliases)


def _is_identity(
    node: onnx.NodeProto, types: dict[str, tuple[int, tuple[int, ...]]], known: dict[str, onnx.TensorProto]
) -> bool:
    if node.op_type in ("Identity", "Dropout"):
        return True
    if node.op_type == "Concat":
        return len(node.input) == 1
    if node.op_type == "Transpose":
        order = attributes(node).get("perm", [])
        return list(order) == sorted(order) and bool(order)
    same = node.output[0] in types and types.get(node.input[0] if node.input else "") == types[node.output[0]]
    if node.op_type == "Slice" and same:
        # Equal shape and step 1 leave no freedom; a negative step would be a flip.
        steps = numpy_helper.to_array(known[node.input[4]]) if len(node.input) > 4 and node.input[4] else np.ones(1)
        return bool((steps == 1).all())
    if node.op_type == "Mul" and same and not node.input[1].startswith(_PARAMETER):
        factor = known.get(node.input[1])
        return factor is not None and bool((numpy_helper.to_array(factor) == 1.0).all())
    if node.op_type == "Pad":
        return node.input[1] in known and not numpy_helper.to_array(known[node.input[1]]).any()
    return node.op_type in _SAME_WHEN_UNCHANGED and same


_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def merge_reshapes(model: onnx.ModelProto) -> None:
    """Make one Reshape, with a constant shape, of a chain of nodes that only rename axes."""
    graph = model.graph
    types = tensor_types(model)
    producer = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type not in _RESHAPES or node.output[0] not in types:
            continue
        start = node.input[0]
        while start in producer and producer[start].op_type in _RESHAPES:
            start = producer[start].input[0]
        shape = add_initializer(graph, f"{node.output[0]}.shape", np.array(types[node.output[0]][1], np.int64))
        node.op_type = "Reshape"
        del node.attribute[:]
        del node.input[:]
        node.input.extend([start, shape])


def merge_slices(model: onnx.ModelProto) -> None:
    """Make one Slice of two that follow each other on different axes."""
    graph = model.graph
    producer = {name: node for node in graph.node for name in node.output}
    known = initializers(graph)
    for node in graph.node:
        before = producer.get(node.input[0]) if node.op_type == "Slice" else None
        if before is None or before.op_type != "Slice":
            continue
        first, second = _limits(before, known), _limits(node, known)
        if first is None or second is None or _may_share_an_axis(first[2], second[2]):
            continue
        inputs = [before.input[0]]
        for part, (one, two) in enumerate(zip(first, second, strict=True)):
            inputs.append(add_initializer(graph, f"{node.output[0]}.limits{part}", np.concatenate([one, two])))
        del node.input[:]
        node.input.extend(inputs)


def _may_share_an_axis(first: Any, second: Any) -> bool:
    """Whether two lists of axes have one in common, where some may be counted from the end."""
    from_the_end = {bool(axis < 0) for axis in (*first, *second)}
    return len(from_the_end) > 1 or bool(set(first) & set(second))


def _limits(node: onnx.NodeProto, known: dict[str, onnx.TensorProto]) -> list[Any] | None:
    """starts, ends, axes, steps of a Slice whose limits are all given and constant."""
    if len(node.input) != 5 or not all(name in known for name in node.input[1:]):
        return None
    return [numpy_helper.to_array(known[name]) for name in node.input[1:]]


def fold_batch_norm(model: onnx.ModelProto) -> None:
    """Multiply a BatchNormalization into the convolution in front of it."""
    graph = model.graph
    producer = {name: node for node in graph.node for name in node.output}
    readers = consumers(graph)
    known = initializers(graph)
    aliases: dict[str, str] = {}
    kept = []
    for node in graph.node:
        conv = producer.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        fits = conv is not None and conv.op_type in ("Conv", "ConvTranspose") and len(readers[node.input[0]]) == 1
        if conv is None or not fits or not all(name in known for name in (conv.input[1], *node.input[1:])):
            kept.append(node)
            continue
        scale, shift, mean, variance = (numpy_helper.to_array(known[name]) for name in node.input[1:])
        factor = scale / np.sqrt(variance + np.float32(attributes(node).get("epsilon", 1e-5)))
        weight = numpy_helper.to_array(known[conv.input[1]])
        bias = numpy_helper.to_array(known[conv.input[2]]) if len(conv.input) > 2 else np.zeros_like(mean)
        if conv.op_type == "ConvTranspose" and attributes(conv).get("group", 1) != 1:
            kept.append(node)
            continue
        axis = 0 if conv.op_type == "Conv" else 1
        wide = factor.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
        names = [conv.input[1], conv.input[2] if len(conv.input) > 2 else f"{conv.input[1]}/bias"]
        values = [weight * wide, (bias - mean) * factor + shift]
        del conv.input[1:]
        for name, value in zip(names, values, strict=True):
            conv.input.append(add_initializer(graph, f"{name}/folded", value.astype(np.float32)))
        aliases[node.output[0]] = conv.output[0]
    replace_nodes(graph, kept)
    substitute(graph, aliases)


def merge_equal(model: onnx.ModelProto) -> None:
    """Keep one of equal initializers, and one of equal nodes on equal inputs."""
    graph = model.graph
    seen: dict[Any, str] = {}
    aliases: dict[str, str] = {}
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        # Different parameters stay apart even when they are equal (zero biases of a fresh network).
        owner = tensor.name.split("/")[0] if tensor.name.startswith(_PARAMETER) else ""
        first = seen.setdefault((owner, tensor.data_type, value.shape, value.tobytes()), tensor.name)
        if first != tensor.name:
            aliases[tensor.name] = first
    outputs = {value.name for value in graph.output}
    kept = []
    nodes: dict[Any, onnx.NodeProto] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = aliases.get(name, name)
        key = (
            node.op_type,
            tuple(node.input),
            len(node.output),
            tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute)),
        )
        twin = nodes.setdefault(key, node)
        if twin is node or outputs.intersection(node.output):
            kept.append(node)
        else:
            aliases.update(zip(node.output, twin.output, strict=True))
    replace_nodes(graph, kept)


def drop_dead(model: onnx.ModelProto) -> None:
    """Remove nodes and constants that no output depends on."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    replace_nodes(graph, reversed(kept))
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def rename(model: onnx.ModelProto) -> None:
    """Name nodes ``module/path/Operator.n``, constants after their parameter, tensors as short as can be.

    Names of tensors end in ``_``: onnxruntime.quantization 1.32 copies shared biases under ``NAME`` +
    number and does not look whether such a tensor exists (microsoft/onnxruntime#24705).
    """
    graph = model.graph
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    used: dict[str, int] = {}

    def number(stem: str) -> int:
        used[stem] = used.get(stem, 0) + 1
        return used[stem]

    for node in graph.node:
        scope = _scope(node.name)
        stem = f"{scope}/{node.op_type}" if scope else node.op_type
        node.name = f"{stem}.{number(stem)}"
        for name in node.output:
            if name:
                names.setdefault(name, f"t{number('t')}_")
    for tensor in graph.initializer:
        if tensor.name.startswith(_PARAMETER):
            parameter = tensor.name[len(_PARAMETER) :].split("/")[0]
            repeat = number(parameter)
            plain = repeat == 1 and not parameter[-1].isdigit()
            names[tensor.name] = parameter if plain else f"{parameter}.{repeat}_"
        else:
            names[tensor.name] = f"c{number('c')}_"
        tensor.name = names[tensor.name]
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        for index, name in enumerate(node.output):
            node.output[index] = names.get(name, name)


def _scope(name: str) -> str:
    """``encoder4.0/mamba`` of ``/model/encoder4/encoder4.0/mamba/Mul_12``, the exporter's name of a
    node."""
    parts = [part for part in name.split("/")[:-1] if part]
    path: list[str] = []
    for part in parts[1:] if parts[:1] == ["model"] else parts:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
    return "/".join(path)


def strip(model: onnx.ModelProto) -> None:
    """Remove everything that is not the computation: documentation, stack traces, paths, inferred types."""
    graph = model.graph
    del model.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]
    model.producer_name, model.producer_version, model.domain, model.doc_string = "edgemamba", "", "", ""
    graph.name, graph.doc_string = "main", ""
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        item.doc_string = ""
        del item.metadata_props[:]


PASSES: tuple[Callable[[onnx.ModelProto], None], ...] = (
    constants_to_initializers,
    fold_constants,
    fold_batch_norm,
    slice_negative_pads,
    drop_identities,
    merge_reshapes,
    merge_slices,
    merge_equal,
    drop_identities,
    drop_dead,
    rename,
    strip,
)
