"""The two tools that find int8 scales of ONNX graphs, behind one signature.

Both get the same nodes and the same images, and are asked for the same thing: symmetric ranges, averaged
over the images. What a tool changes besides is not used (``qdq``).
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from edgemamba.errors import VerificationError, require
from edgemamba.registry import Task
from edgemamba.stages.calibration import CalibrationSet, refuse_silent
from edgemamba.stages.onnx_graph import initializers
from edgemamba.stages.plan import QuantizerName
from edgemamba.stages.qdq import NodeScales, read, weight_axis, weight_position

Ranges = dict[str, tuple[float, float]]


def activation_ranges(
    model: onnx.ModelProto, tensors: Sequence[str], calibration: CalibrationSet, task: Task
) -> Ranges:
    """Least and greatest value of each tensor, per image, averaged over the images.

    Averages, because the extremes of single images stretch a symmetric range until ordinary values share
    few steps.

    Raises:
        InputError: the float network gives nothing on these images that a calibrated range could let through.
    """
    import onnxruntime as ort

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    output = model.graph.output[0].name
    names = sorted(set(tensors))
    for name in names:
        if name not in {value.name for value in watched.graph.input}:
            watched.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    read_out = [name for name in names if name != feed]
    lows, highs, largest = [], [], -math.inf
    for image in calibration:
        values = dict(zip((output, *read_out), session.run([output, *read_out], {feed: image}), strict=True))
        values[feed] = image
        lows.append([float(values[name].min()) for name in names])
        highs.append([float(values[name].max()) for name in names])
        largest = max(largest, float(values[output].max()))
    refuse_silent(task, largest, len(calibration))
    low, high = np.mean(lows, axis=0), np.mean(highs, axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(names)}


def nearest(model: onnx.ModelProto, candidates: Sequence[onnx.ModelProto], calibration: CalibrationSet) -> int:
    """Which candidate's outputs are nearest to those of ``model`` on the calibration images, by mean |difference|."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    sessions = [
        ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for graph in (model, *candidates)
    ]
    feed = model.graph.input[0].name
    distances = np.zeros(len(candidates))
    for image in calibration:
        expected, *found = (session.run(None, {feed: image})[0] for session in sessions)
        distances += [float(np.abs(values - expected).mean(dtype=np.float64)) for values in found]
    return int(np.argmin(distances))


def quantize_ort(
    model: onnx.ModelProto, nodes: Sequence[str], ranges: Ranges, calibration: CalibrationSet
) -> dict[str, NodeScales]:
    """Scales by onnxruntime.quantization from ranges that were measured before."""
    del calibration
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    constants = initializers(model.graph)
    chosen = [node for node in model.graph.node if node.name in set(nodes)]
    operators = sorted({node.op_type for node in chosen})
    overrides = {}
    for node in chosen:
        position = weight_position(node, constants)
        name = node.input[position]
        axis = weight_axis(node, position, len(constants[name].dims))
        overrides[name] = [{"axis": axis, "quant_type": QuantType.QInt8, "symmetric": True}]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=list(nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=operators,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": operators,
            "TensorQuantOverrides": overrides,
        },
    )
    return read(quantizer.quantize_model(), model, nodes)


def quantize_nncf(
    model: onnx.ModelProto, nodes: Sequence[str], ranges: Ranges, calibration: CalibrationSet
) -> dict[str, NodeScales]:
    """Scales by NNCF, which measures its own ranges (also averaged per image) and corrects biases.

    Raises:
        MissingDependency: nncf is not installed.
    """
    del ranges
    require("nncf", "quant")
    # NNCF reports usage to its makers unless it believes to run in its own CI.
    os.environ["NNCF_CI"] = "1"
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    images = [{model.graph.input[0].name: image} for image in calibration]
    wanted = set(nodes)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    ignored = nncf.IgnoredScope(names=[node.name for node in model.graph.node if node.name not in wanted])
    try:
        # It draws its bars on stdout.
        with contextlib.redirect_stdout(io.StringIO()):
            quantized = nncf.quantize(
                copy,
                nncf.Dataset(images),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(images),
                ignored_scope=ignored,
            )
    except (RuntimeError, nncf.errors.InternalError) as error:
        raise VerificationError(
            f"NNCF cannot quantize this graph: {' '.join(str(error).split())[:300]}", hint="--quantizer ort"
        ) from None
    return read(quantized, model, nodes)


BACKENDS: dict[
    QuantizerName, Callable[[onnx.ModelProto, Sequence[str], Ranges, CalibrationSet], dict[str, NodeScales]]
] = {
    "ort": quantize_ort,
    "nncf": quantize_nncf,
}
