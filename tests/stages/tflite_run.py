"""Run a .tflite in object form, and look at its operators, through LiteRT itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

Array = npt.NDArray[Any]


def to_bytes(model: Any) -> bytes:
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def run(model: Any, image: Array) -> Array:
    """Result of a graph of one input and one output: an object, bytes or a file."""
    if isinstance(model, Path):
        model = model.read_bytes()
    interpreter = Interpreter(model_content=model if isinstance(model, bytes) else to_bytes(model), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(source["index"], image)
    interpreter.invoke()
    found: Array = interpreter.get_tensor(result["index"])
    return np.array(found)


def operators(model: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Name and output shape of every operator."""
    graph = model.subgraphs[0]
    return [
        (
            flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex),
            tuple(graph.tensors[operator.outputs[0]].shape),
        )
        for operator in graph.operators
    ]


def names(model: Any) -> list[str]:
    """Name of every operator."""
    return [name for name, _ in operators(model)]
