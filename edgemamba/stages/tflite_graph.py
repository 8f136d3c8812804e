"""Read and tidy a .tflite file: what is in it, what may not be in it, and how little of it a board needs.

A file is worked on in the object form of ``ai_edge_litert`` (``ModelT``), which this module reads, checks,
and writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemamba.board import runner
from edgemamba.errors import InputError, Unsupported
from edgemamba.files import write_bytes

IDENTIFIER = b"TFL3"
SIGNATURE = "serving_default"
# Tensor types of the file format.
FLOAT32, FLOAT16, INT32, BOOL, INT8 = 0, 1, 2, 6, 9


def read(path: Path) -> Any:
    """Object form of a .tflite file.

    Raises:
        InputError: the file is missing or not a TFLite flatbuffer.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="run the export stage again") from None
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Any:
    """Object form of a .tflite file's bytes; ``name`` is for the message."""
    import struct

    from ai_edge_litert.tools import flatbuffer_utils

    if data[4:8] != IDENTIFIER:
        raise InputError(f"{name} is not a TFLite file", hint="give it the .tflite of the export stage")
    try:
        return flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    except (struct.error, IndexError, ValueError, TypeError) as error:
        raise InputError(f"{name} is damaged: {error}", hint="run the export stage again") from None


def write(model: Any, path: Path) -> None:
    """Serialise the object form to ``path``, atomically."""
    from ai_edge_litert.tools import flatbuffer_utils

    write_bytes(path, bytes(flatbuffer_utils.convert_object_to_bytearray(model)))


def operator_name(model: Any, operator: Any) -> str:
    """Builtin name of an operator, such as CONV_2D."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) or "UNKNOWN"


def tensor_name(tensor: Any) -> str:
    """Name of a tensor, "" if it has none."""
    name = tensor.name
    return name.decode() if isinstance(name, bytes) else name or ""


def is_constant(model: Any, index: int) -> bool:
    """Whether a tensor's content is in the file."""
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return data is not None and len(data) > 0


def constant(model: Any, index: int) -> npt.NDArray[Any]:
    """Content of a constant tensor of type float32, float16, int32 or int8."""
    tensor = model.subgraphs[0].tensors[index]
    kinds: dict[int, Any] = {0: np.float32, 1: np.float16, 2: np.int32, 9: np.int8}
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    return np.frombuffer(data.tobytes(), kinds[tensor.type]).reshape(tuple(tensor.shape))


def check_builtin(model: Any) -> None:
    """Refuse what a board's runtime may lack.

    Raises:
        Unsupported: an operator that is not a TFLite builtin, more than one subgraph, or a shape that is not
        static.
    """
    if len(model.subgraphs) != 1:
        raise Unsupported(
            f"the TFLite graph has {len(model.subgraphs)} subgraphs: control flow or a composite was left in it",
            hint="write the layer from plain tensor operations",
        )
    graph = model.subgraphs[0]
    for operator in graph.operators:
        name = operator_name(model, operator)
        if name in ("CUSTOM", "DELEGATE", "UNKNOWN") or name.startswith("STABLEHLO_"):
            where = tensor_name(graph.tensors[operator.outputs[0]])
            options = operator.builtinOptions2
            called = getattr(options, "callTargetName", None) or getattr(options, "name", None) or b""
            what = called.decode() if isinstance(called, bytes) else called
            raise Unsupported(
                f"{what or name} at {where or 'an unnamed tensor'} has no TFLite builtin operator",
                hint="export to ONNX (--format onnx), or write the layer from other operations",
            )
    for tensor in graph.tensors:
        if tensor.shapeSignature is not None and any(n < 0 for n in tensor.shapeSignature):
            raise Unsupported(
                f"the TFLite tensor {tensor_name(tensor)} has a dynamic shape {list(tensor.shapeSignature)}",
                hint="export at one fixed --size",
            )


def compact(model: Any) -> None:
    """Drop operators, tensors, buffers and operator codes that nothing uses, and join equal constants."""
    graph = model.subgraphs[0]
    needed = set(graph.outputs)
    kept_operators = []
    for operator in reversed(graph.operators):
        if needed.intersection(operator.outputs):
            needed.update(operator.inputs)
            kept_operators.append(operator)
    graph.operators = kept_operators[::-1]
    codes: dict[int, int] = {}
    for operator in graph.operators:
        operator.opcodeIndex = codes.setdefault(operator.opcodeIndex, len(codes))
    model.operatorCodes = [model.operatorCodes[old] for old in codes]

    buffers: dict[bytes, int] = {b"": 0}
    contents = [model.buffers[0]]
    for tensor in graph.tensors:
        buffer = model.buffers[tensor.buffer]
        key = b"" if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()
        if key and key not in buffers:
            buffers[key] = len(contents)
            contents.append(buffer)
        tensor.buffer = buffers[key]
    model.buffers = contents

    # One tensor per distinct constant; a variable tensor stays what it is.
    first: dict[Any, int] = {}
    same = list(range(len(graph.tensors)))
    for index, tensor in enumerate(graph.tensors):
        if tensor.buffer and tensor.quantization is None:
            same[index] = first.setdefault((tensor.buffer, tensor.type, tuple(tensor.shape)), index)
    kept: dict[int, int] = {}

    def renumber(indices: Iterable[int]) -> list[int]:
        return [i if i < 0 else kept.setdefault(same[i], len(kept)) for i in indices]

    graph.inputs = renumber(graph.inputs)
    for operator in graph.operators:
        operator.inputs, operator.outputs = renumber(operator.inputs), renumber(operator.outputs)
    graph.outputs = renumber(graph.outputs)
    for signature in model.signatureDefs or []:
        for entry in [*signature.inputs, *signature.outputs]:
            entry.tensorIndex = renumber([entry.tensorIndex])[0]
    graph.tensors = [graph.tensors[old] for old in kept]
    used = {tensor.buffer for tensor in graph.tensors} | {0}
    order = {old: new for new, old in enumerate(sorted(used))}
    model.buffers = [model.buffers[old] for old in order]
    for tensor in graph.tensors:
        tensor.buffer = order[tensor.buffer]


def facts(model: Any, size_bytes: int) -> dict[str, Any]:
    """What the manifest records about a graph.

    Returns:
        operators (number), operator_counts (name: number), tensors, bytes, weight_bytes (constants of more
        than 16 elements that are not int32 shapes), quantized_operators (name: number, those that compute in
        int8).
    """
    graph = model.subgraphs[0]
    counts = Counter(operator_name(model, operator) for operator in graph.operators)
    int8 = Counter(
        operator_name(model, operator)
        for operator in graph.operators
        if graph.tensors[operator.outputs[0]].type == 9 and operator_name(model, operator) != "QUANTIZE"
    )
    weights = {
        tensor.buffer: len(model.buffers[tensor.buffer].data)
        for index, tensor in enumerate(graph.tensors)
        if is_constant(model, index) and tensor.type in (0, 1, 9) and int(np.prod(tensor.shape)) > 16
    }
    return {
        "operators": sum(counts.values()),
        "operator_counts": dict(sorted(counts.items())),
        "tensors": len(graph.tensors),
        "bytes": size_bytes,
        "weight_bytes": sum(weights.values()),
        "quantized_operators": dict(sorted(int8.items())),
    }


def delegation(path: Path) -> dict[str, Any]:
    """How LiteRT splits the graph between XNNPACK and its own kernels on this host.

    Returns:
        partitions (pieces that XNNPACK takes) and left_out (operator: number that stay on the builtin
        kernels).
    """
    from ai_edge_litert.interpreter import Interpreter

    with runner.quiet_native():
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    operators = interpreter._get_ops_details()
    pieces = [details for details in operators if details["op_name"] == "DELEGATE"]
    inside = {int(index) for piece in pieces for index in piece["outputs"]}
    makers = {
        int(index): details for details in operators for index in details["outputs"] if details["op_name"] != "DELEGATE"
    }
    asked = [int(index) for piece in pieces for index in piece["inputs"]]
    asked += [int(details["index"]) for details in interpreter.get_output_details()]
    left: dict[int, str] = {}
    while asked:
        index = asked.pop()
        if index in makers and index not in inside and index not in left:
            left[index] = makers[index]["op_name"]
            asked += [int(i) for i in makers[index]["inputs"]]
    return {"partitions": len(pieces), "left_out": dict(sorted(Counter(left.values()).items()))}
