"""fp16 and int8 for .tflite: which layers change, from which ranges, and what stays float.

fp16 stores the weights of convolutions and projections as float16 behind DEQUANTIZE; XNNPACK unpacks them
once.

int8 is static: convolutions and projections compute in int8, per-channel weights, ranges from calibration
images. The scan, softplus, decays, norms, gates, resizes, the head and the layer before it stay float by rule
(``structure``): measured on UL-VM-UNet the norms and the head are what static int8 destroys, and an int8 state keeps
4 to 28 dB.
"""

from __future__ import annotations

import contextlib
import copy
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgemamba.board import runner
from edgemamba.errors import Unsupported, VerificationError, require
from edgemamba.stages import tflite_graph
from edgemamba.stages.calibration import CalibrationSet, refuse_silent
from edgemamba.stages.structure import Kind, Role, Step, Structure
from edgemamba.stages.tflite_graph import FLOAT16, FLOAT32, INT8

if TYPE_CHECKING:
    from edgemamba.registry import Task

# Operators with weights, and which input holds them.
_WEIGHTS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
# Operators that pass int8 on unchanged: between int8 layers they are int8, too.
_PASSING = ("MAX_POOL_2D", "CONCATENATION")
# Constant matrices of norms, pooling and resizes are no learnt weights: they stay float32 in fp16 and int8.
_EXACT_LAYERS = re.compile(r"(^|\.)(_averages|matrix)(\.\d+)?$")
_KINDS: dict[str, Kind] = {
    "EXP": "exp",
    "LOG": "log",
    "LOGISTIC": "sigmoid",
    **dict.fromkeys(("MUL", "BATCH_MATMUL"), "mul"),
    "ADD": "add",
    "SUB": "add",
    **dict.fromkeys(("SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE", "GATHER", "UNPACK"), "split"),
    "MEAN": "mean",
    **dict.fromkeys(("SQRT", "RSQRT"), "root"),
    **dict.fromkeys(("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS"), "move"),
}
# What a state space needs exactly, and what int8 destroys.
_FLOAT_ROLES: dict[str, tuple[Role, ...]] = {"fp16": ("scan",), "int8": ("head", "attention", "norm", "scan")}
_QUANTIZER_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}


def fp16(path: Path, out: Path) -> dict[str, Any]:
    """Store weights of convolutions and projections as float16.

    Raises:
        InputError: ``path`` is not a .tflite file.
        Unsupported: it has no float32 weights, or one that float16 cannot hold.
    """
    model = tflite_graph.read(path)
    graph = model.subgraphs[0]
    exact = _structure(model).roles()
    weights = {
        graph.operators[i].inputs[_WEIGHTS[kind]]
        for i, kind in _layers(model).items()
        if exact.get(i) not in _FLOAT_ROLES["fp16"]
    }
    weights = {i for i in weights if graph.tensors[i].type == FLOAT32}
    if not weights:
        raise Unsupported(f"{path.name} has no float32 weights", hint="give it the fp32 .tflite of the export stage")
    for index in sorted(weights):
        _store_half(model, index)
    tflite_graph.compact(model)
    tflite_graph.write(model, out)
    return {**tflite_graph.facts(model, out.stat().st_size), "float16_weights": len(weights)}


def int8(path: Path, calibration: CalibrationSet, out: Path, *, task: Task = "segmentation") -> dict[str, Any]:
    """Quantize convolutions and projections to int8 by ai-edge-quantizer.

    Raises:
        MissingDependency: ai-edge-quantizer is not installed.
        InputError: ``path`` is not a .tflite file, or the calibration images show no foreground to the
        network. Unsupported: no layer may become int8. VerificationError: the quantizer left a layer out, or
        touched one that stays float.
    """
    require("ai_edge_quantizer", "tflite")
    model = tflite_graph.read(path)
    layers = int8_layers(model)
    if not any(name in _WEIGHTS for _, name in layers.values()):
        raise Unsupported(f"no layer of {path.name} may become int8", hint="use --precision fp16")
    ranges = mean_ranges(per_image_ranges(model, _activations(model, layers), calibration, task))
    quantized = quantize(model, layers, ranges)
    _check(quantized, layers)
    tflite_graph.write(quantized, out)
    left = [name for name in _names(model) if name not in {layer for layer, _ in layers.values()}]
    return {
        **tflite_graph.facts(quantized, out.stat().st_size),
        "quantizer": "ai-edge-quantizer",
        "ranges": "mean of per-image min and max",
        "int8_layers": sorted(layer for layer, kind in layers.values() if kind in _WEIGHTS),
        "float_layers": sorted(left),
        "calibration": calibration.as_document(),
    }


def int8_layers(model: Any) -> dict[int, tuple[str, str]]:
    """What becomes int8: operator position -> (name of its output, operator name)."""
    structure = _structure(model)
    exact = structure.roles()
    # An int8 layer has an int8 result: what the head reads must not be one (ResNet-18 segmenting: mask Dice 0.94 with,
    # 0.99 without).
    last = structure.feeding()
    found = {
        i: (_layer_name(model, i), kind)
        for i, kind in _layers(model).items()
        if exact.get(i) not in _FLOAT_ROLES["int8"] and i != last
    }
    kinds = [tflite_graph.operator_name(model, operator) for operator in model.subgraphs[0].operators]
    return {**found, **_between(model, kinds, set(found))}


def _structure(model: Any) -> Structure:
    """The graph as ``structure`` reads it, steps at the operators' positions."""
    graph = model.subgraphs[0]
    layers = _layers(model)
    steps = []
    for i, operator in enumerate(graph.operators):
        kind = tflite_graph.operator_name(model, operator)
        inputs = [index for index in operator.inputs if index >= 0 and not tflite_graph.is_constant(model, index)]
        steps.append(
            Step(
                _KINDS.get(kind, "other"),
                tuple(str(index) for index in inputs),
                tuple(str(index) for index in operator.outputs),
                i in layers,
                kind == "DEPTHWISE_CONV_2D",
            )
        )
    return Structure(steps, str(graph.outputs[0]))


def _layers(model: Any) -> dict[int, str]:
    """Operators with learnt weights: position -> operator name."""
    found = {}
    for i, operator in enumerate(model.subgraphs[0].operators):
        kind = tflite_graph.operator_name(model, operator)
        learnt = kind in _WEIGHTS and tflite_graph.is_constant(model, operator.inputs[_WEIGHTS[kind]])
        if learnt and not _EXACT_LAYERS.search(_layer_name(model, i)):
            found[i] = kind
    return found


def _layer_name(model: Any, position: int) -> str:
    graph = model.subgraphs[0]
    return tflite_graph.tensor_name(graph.tensors[graph.operators[position].outputs[0]])


def _between(model: Any, kinds: list[str], chosen: set[int]) -> dict[int, tuple[str, str]]:
    """Pools and joins whose inputs all come from int8 operators and whose results all go to int8
    operators."""
    graph = model.subgraphs[0]
    maker = {index: i for i, operator in enumerate(graph.operators) for index in operator.outputs}
    users: dict[int, list[int]] = {}
    for i, operator in enumerate(graph.operators):
        for index in operator.inputs:
            users.setdefault(index, []).append(i)
    passing = {i for i, kind in enumerate(kinds) if kind in _PASSING}
    while True:
        whole = chosen | passing
        wrong = {
            i
            for i in passing
            if not all(maker.get(index) in whole for index in graph.operators[i].inputs)
            or not all(user in whole for user in users.get(graph.operators[i].outputs[0], []))
        }
        if not wrong:
            return {i: (_working_name(graph.operators[i].outputs[0]), kinds[i]) for i in passing}
        passing -= wrong


def per_image_ranges(
    model: Any, activations: list[int], calibration: CalibrationSet, task: Task
) -> dict[int, npt.NDArray[np.float64]]:
    """Smallest and largest value of each activation in each calibration image, (images, 2).

    Raises:
        InputError: the float network gives nothing on these images that a calibrated range could let through.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.tools import flatbuffer_utils

    probe = copy.copy(model)
    probe.signatureDefs = None
    graph = copy.copy(model.subgraphs[0])
    probe.subgraphs = [graph]
    graph.outputs = [*model.subgraphs[0].outputs, *activations]
    data = bytes(flatbuffer_utils.convert_object_to_bytearray(probe))
    with runner.quiet_native():
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    outputs = [details["index"] for details in interpreter.get_output_details()]
    found: list[list[tuple[float, float]]] = []
    largest = -np.inf
    for image in calibration:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        values = [interpreter.get_tensor(index) for index in outputs]
        largest = max(largest, float(values[0].max()))
        found.append([(float(value.min()), float(value.max())) for value in values[1:]])
    refuse_silent(task, largest, len(found))
    ranges = np.asarray(found, np.float64)
    return {index: ranges[:, i] for i, index in enumerate(activations)}


def mean_ranges(ranges: dict[int, npt.NDArray[np.float64]]) -> dict[int, tuple[float, float]]:
    """Per-image minima and maxima averaged over the images: one bright slice does not stretch the scale."""
    return {index: (float(of[:, 0].mean()), float(of[:, 1].mean())) for index, of in ranges.items()}


def quantize(model: Any, layers: dict[int, tuple[str, str]], ranges: dict[int, tuple[float, float]]) -> Any:
    """int8 graph of ``model`` in object form, names as they were."""
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer import qtyping, quantizer

    named = copy.copy(model)
    graph = copy.copy(model.subgraphs[0])
    named.subgraphs = [graph]
    graph.tensors = [copy.copy(tensor) for tensor in graph.tensors]
    for index, tensor in enumerate(graph.tensors):
        tensor.name = tflite_graph.tensor_name(tensor) or _working_name(index)
    tool = quantizer.Quantizer(bytes(flatbuffer_utils.convert_object_to_bytearray(named)))
    for name, kind in layers.values():
        operation = qtyping.TFLOperationName(_QUANTIZER_NAMES.get(kind, kind))
        tool.add_static_config(f"^{re.escape(name)};$", operation, activation_num_bits=8, weight_num_bits=8)
    statistics = {
        graph.tensors[index].name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
        for index, (low, high) in ranges.items()
    }
    # The tool draws bars and warns about its own debugging mode.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        result = tool.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    quantized = tflite_graph.parse(bytes(result.quantized_model), "the quantizer's result")
    _keep_names(quantized, set(_names(model)))
    tflite_graph.compact(quantized)
    tflite_graph.check_builtin(quantized)
    return quantized


def _activations(model: Any, layers: dict[int, tuple[str, str]]) -> list[int]:
    """Tensors whose range the quantizer needs: what goes into and comes out of the chosen operators."""
    graph = model.subgraphs[0]
    indices: dict[int, None] = {}
    for position in layers:
        operator = graph.operators[position]
        for index in [*operator.inputs, *operator.outputs]:
            if index >= 0 and not tflite_graph.is_constant(model, index):
                indices[index] = None
    return list(indices)


def _check(model: Any, layers: dict[int, tuple[str, str]]) -> None:
    """Every chosen layer computes in int8 and nothing else does.

    Raises:
        VerificationError: the quantizer left a layer out, or touched one that stays float.
    """
    wanted = sum(1 for _, kind in layers.values() if kind in _WEIGHTS)
    graph = model.subgraphs[0]
    found = 0
    for operator in graph.operators:
        kind = tflite_graph.operator_name(model, operator)
        quantized = graph.tensors[operator.outputs[0]].type == INT8
        found += quantized and kind in _WEIGHTS
        if quantized and kind not in (*_WEIGHTS, *_PASSING, "QUANTIZE"):
            raise VerificationError(f"the quantizer turned a {kind} to int8, which stays float", hint=_REPORT)
    if found != wanted:
        raise VerificationError(f"the quantizer turned {found} of {wanted} layers to int8", hint=_REPORT)


def _store_half(model: Any, index: int) -> None:
    """Put a DEQUANTIZE between the float16 content of a constant and whatever reads it."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    whole = graph.tensors[index]
    values = tflite_graph.constant(model, index)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise Unsupported(f"a weight of {float(np.abs(values).max()):g} is beyond float16", hint="use --precision fp32")
    stored = copy.copy(whole)
    stored.type = FLOAT16
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(half.tobytes(), np.uint8)
    model.buffers.append(buffer)
    stored.buffer = len(model.buffers) - 1
    whole.buffer = 0
    graph.tensors.append(stored)
    operator = schema.OperatorT()
    operator.opcodeIndex = _dequantize_code(model, schema)
    operator.inputs, operator.outputs = [len(graph.tensors) - 1], [index]
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    graph.operators.insert(0, operator)


def _dequantize_code(model: Any, schema: Any) -> int:
    number = schema.BuiltinOperator.DEQUANTIZE
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == number:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = 3  # the first that reads float16
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _names(model: Any) -> Iterator[str]:
    """Names of the layers of a graph, its output aside."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        name = tflite_graph.tensor_name(graph.tensors[operator.outputs[0]])
        if name and operator.outputs[0] not in graph.outputs:
            yield name


def _keep_names(model: Any, layers: set[str]) -> None:
    graph = model.subgraphs[0]
    ends = {*graph.inputs, *graph.outputs}
    for index, tensor in enumerate(graph.tensors):
        name = tflite_graph.tensor_name(tensor)
        tensor.name = name if index in ends or name in layers else None


def _working_name(index: int) -> str:
    return f"tensor {index}"


_REPORT = "please report it with the .tflite; --precision fp16 works without the quantizer"
