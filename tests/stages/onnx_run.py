"""Export any module to a clean ONNX graph as networks of other projects are, and run it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from torch import nn

from edgemamba.ssm import use_form
from edgemamba.stages.onnx_passes import clean
from edgemamba.stages.to_onnx import check_graph, traced

Array = npt.NDArray[Any]
OPSET, IR = 17, 8


def to_graph(module: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    with use_form(module, "litert"):
        graph = clean(traced(module, shape, OPSET, "output", foreign=True))
    graph.ir_version = min(graph.ir_version, IR)
    check_graph(graph, OPSET, IR)
    return graph


def run_graph(graph: onnx.ModelProto, image: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"image": image.astype(np.float32)})[0]
    return found
