"""Write a .tflite graph operator by operator: float32, static shapes, builtin operators of version 1 to 5 only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemamba.stages.tflite_graph import BOOL, FLOAT32, INT32, SIGNATURE

# The oldest version that has what is written here; boards with older runtimes load the file then.
_VERSIONS = {
    "FULLY_CONNECTED": 5,
    "TRANSPOSE_CONV": 3,
    "BATCH_MATMUL": 1,
    "DEPTHWISE_CONV_2D": 2,
    "MAX_POOL_2D": 1,
    "TRANSPOSE": 1,
}
_BINARY_OPTIONS = {
    "MUL": "MulOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "DIV": "DivOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "POW": "PowOptions",
    "GREATER": "GreaterOptions",
    "GREATER_EQUAL": "GreaterEqualOptions",
    "LESS": "LessOptions",
    "LESS_EQUAL": "LessEqualOptions",
    "EQUAL": "EqualOptions",
    "NOT_EQUAL": "NotEqualOptions",
    "LOGICAL_AND": "LogicalAndOptions",
    "LOGICAL_OR": "LogicalOrOptions",
}
# Operators whose result is true or false, and those that hand values on as they are.
_TRUTH = (
    "GREATER",
    "GREATER_EQUAL",
    "LESS",
    "LESS_EQUAL",
    "EQUAL",
    "NOT_EQUAL",
    "LOGICAL_AND",
    "LOGICAL_OR",
    "LOGICAL_NOT",
)
_MOVEMENT = ("RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "CONCATENATION", "TILE", "GATHER", "REVERSE_V2")
# Axes from which on a transposition is written over joined axes: runtimes are fast up to here.
_AXES = 4


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph: its index and its shape as stored."""

    index: int
    shape: tuple[int, ...]


class GraphWriter:
    """One subgraph in the making."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.subgraphs = [self.graph]
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]
        self._codes: dict[str, int] = {}
        self._buffers: dict[bytes, int] = {}
        self._constants: dict[tuple[int, int, tuple[int, ...]], Value] = {}
        self._arrays: dict[int, npt.NDArray[Any]] = {}
        self._names: dict[str, int] = {}
        self._reshaped: dict[int, Value] = {}
        self._doubled: dict[int, Value] = {}

    def input(self, shape: Sequence[int]) -> Value:
        """An input of the graph."""
        value = self._tensor(shape)
        self.graph.inputs = [*(self.graph.inputs or []), value.index]
        return value

    def constant(self, array: npt.NDArray[Any]) -> Value:
        """A constant, float32, int32 or bool; equal constants are one tensor."""
        kind, dtype = {"i": (INT32, np.int32), "u": (INT32, np.int32), "b": (BOOL, np.bool_)}.get(
            array.dtype.kind, (FLOAT32, np.float32)
        )
        array = np.ascontiguousarray(array, dtype).reshape(array.shape)
        data = array.tobytes()
        if data not in self._buffers:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            self.model.buffers.append(buffer)
            self._buffers[data] = len(self.model.buffers) - 1
        key = (self._buffers[data], kind, array.shape)
        if key not in self._constants:
            self._constants[key] = self._tensor(array.shape, kind, key[0])
            self._arrays[self._constants[key].index] = array
        return self._constants[key]

    def integers(self, values: Sequence[Any]) -> Value:
        """An int32 constant: axes, sizes, paddings."""
        return self.constant(np.asarray(values, np.int32))

    def operator(
        self,
        name: str,
        inputs: Sequence[Value],
        shape: Sequence[int],
        options: str = "",
        kind: int | None = None,
        **fields: Any,
    ) -> Value:
        """Append a builtin operator with one output.

        Args:
            name: such as CONV_2D.
            shape: of the output.
            options: name of its options table, such as Conv2DOptions; default: the operator has none.
            kind: type of the output; None: that of the input for what moves values, bool for what compares them,
                else float32.
            fields: of the options table.
        """
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._code(name)
        operator.inputs = [value.index for value in inputs]
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f"{options}T")()
            for key, content in fields.items():
                if not hasattr(operator.builtinOptions, key):
                    raise AttributeError(f"{options} has no field {key}")
                setattr(operator.builtinOptions, key, content)
        if kind is None:
            moved = self.graph.tensors[inputs[0].index].type if name in _MOVEMENT else FLOAT32
            kind = BOOL if name in _TRUTH else moved
        output = self._tensor(shape, kind)
        operator.outputs = [output.index]
        self.graph.operators.append(operator)
        return output

    def name(self, value: Value, name: str) -> None:
        """Name a tensor; a name given before gets a number."""
        count = self._names[name] = self._names.get(name, 0) + 1
        self.graph.tensors[value.index].name = name if count == 1 else f"{name}.{count}"

    def finish(self, inputs: dict[str, Value], outputs: dict[str, Value]) -> Any:
        """Close the graph with named inputs and outputs and return the model in object form."""
        self.graph.outputs = [value.index for value in outputs.values()]
        signature = self.schema.SignatureDefT()
        signature.signatureKey = SIGNATURE
        signature.subgraphIndex = 0
        signature.inputs = [self._entry(name, value) for name, value in inputs.items()]
        signature.outputs = [self._entry(name, value) for name, value in outputs.items()]
        self.model.signatureDefs = [signature]
        return self.model

    def binary(self, name: str, a: Value, b: Value) -> Value:
        """An arithmetic operator or a comparison, broadcast."""
        return self.operator(name, [a, b], np.broadcast_shapes(a.shape, b.shape), _BINARY_OPTIONS[name])

    def mul(self, a: Value, b: Value) -> Value:
        """Product, broadcast."""
        return self.binary("MUL", a, b)

    def add(self, a: Value, b: Value) -> Value:
        """Sum, broadcast."""
        return self.binary("ADD", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """Difference, broadcast."""
        return self.binary("SUB", a, b)

    def unary(self, name: str, a: Value) -> Value:
        """EXP, LOG, ABS, NEG, RSQRT, RELU, LOGISTIC, GELU (exact) and others: elementwise without parameters."""
        options = {
            "EXP": "ExpOptions",
            "ABS": "AbsOptions",
            "NEG": "NegOptions",
            "GELU": "GeluOptions",
            "COS": "CosOptions",
            "HARD_SWISH": "HardSwishOptions",
            "LOGICAL_NOT": "LogicalNotOptions",
            "LOG_SOFTMAX": "LogSoftmaxOptions",
        }
        return self.operator(name, [a], a.shape, options.get(name, ""))

    def reduce(self, name: str, a: Value, axes: Sequence[int], *, keep: bool) -> Value:
        """SUM, MEAN or REDUCE_MAX over ``axes``, which stay with length 1 if ``keep``."""
        gone = sorted(axis % len(a.shape) for axis in axes)
        shape = [1 if i in gone else n for i, n in enumerate(a.shape) if keep or i not in gone]
        return self.operator(name, [a, self.integers(gone)], shape, "ReducerOptions", keepDims=keep)

    def slice(self, a: Value, axis: int, begin: int, end: int) -> Value:
        """``a[begin:end]`` along ``axis``."""
        if (begin, end) == (0, a.shape[axis]):
            return a
        size = [end - begin if i == axis else n for i, n in enumerate(a.shape)]
        start = [begin if i == axis else 0 for i in range(len(a.shape))]
        return self.operator("SLICE", [a, self.integers(start), self.integers(size)], size, "SliceOptions")

    def strided(self, a: Value, axis: int, begin: int, end: int, step: int) -> Value:
        """``a[begin:end:step]`` along ``axis``."""
        rank = len(a.shape)
        limits = [[0] * rank, [*a.shape], [1] * rank]
        for limit, number in zip(limits, (begin, end, step), strict=True):
            limit[axis] = number
        shape = [len(range(begin, end, step)) if i == axis else n for i, n in enumerate(a.shape)]
        fields = dict.fromkeys(("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask"), 0)
        operands = [a, *(self.integers(limit) for limit in limits)]
        return self.operator("STRIDED_SLICE", operands, shape, "StridedSliceOptions", **fields)

    def tile(self, a: Value, shape: Sequence[int]) -> Value:
        """Repeat axes until the shape is ``shape``, a multiple of that of ``a`` on every axis."""
        times = [new // n for new, n in zip(shape, a.shape, strict=True)]
        if all(count == 1 for count in times):
            return a
        return self.operator("TILE", [a, self.integers(times)], shape, "TileOptions")

    def gather(self, a: Value, axis: int, indices: Sequence[int]) -> Value:
        """The given positions along ``axis``, in that order."""
        shape = [len(indices) if i == axis else n for i, n in enumerate(a.shape)]
        return self.operator("GATHER", [a, self.integers(indices)], shape, "GatherOptions", axis=axis, batchDims=0)

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        """Join along ``axis``."""
        if len(parts) == 1:
            return parts[0]
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self.operator("CONCATENATION", parts, shape, "ConcatenationOptions", axis=axis)

    def repeat(self, vector: Value, count: int) -> Value:
        """A vector ``count`` (a power of two) times after itself, as one row; done once for each vector."""
        if vector.index in self._arrays:
            return self.constant(np.tile(self._arrays[vector.index].reshape(1, -1), count))
        row = self.reshape(vector, (1, math.prod(vector.shape)))
        while row.shape[1] < count * math.prod(vector.shape):
            if row.index not in self._doubled:
                self._doubled[row.index] = self.concat([row, row], 1)
            row = self._doubled[row.index]
        return row

    def pad(self, a: Value, paddings: Sequence[tuple[int, int]], fill: float = 0.0) -> Value:
        """``fill`` before and after every axis."""
        if not any(before or after for before, after in paddings):
            return a
        shape = [before + n + after for n, (before, after) in zip(a.shape, paddings, strict=True)]
        if fill:
            operands = [a, self.integers(paddings), self.constant(np.array(fill, np.float32))]
            return self.operator("PADV2", operands, shape, "PadV2Options")
        return self.operator("PAD", [a, self.integers(paddings)], shape, "PadOptions")

    def transpose(self, a: Value, order: Sequence[int]) -> Value:
        """Axis i of the result is axis ``order[i]`` of ``a``."""
        if list(order) == list(range(len(a.shape))):
            return a
        shape = [a.shape[axis] for axis in order]
        if len(shape) > _AXES:
            joined, moves = _joined(a.shape, order)
            if len(joined) < len(shape):
                return self.reshape(self.transpose(self.reshape(a, joined), moves), shape)
        return self.operator("TRANSPOSE", [a, self.integers(order)], shape, "TransposeOptions")

    def reshape(self, a: Value, shape: Sequence[int]) -> Value:
        """The same elements in the same order under another shape; a reshape of a reshape is one."""
        source = self._reshaped.get(a.index, a)
        for known in (a, source):
            if tuple(shape) == known.shape:
                return known
        new = [int(n) for n in shape]
        value = self.operator("RESHAPE", [source, self.integers(new)], new, "ReshapeOptions", newShape=new)
        self._reshaped[value.index] = source
        return value

    def _code(self, name: str) -> int:
        if name not in self._codes:
            code = self.schema.OperatorCodeT()
            code.builtinCode = getattr(self.schema.BuiltinOperator, name)
            # Readers from before 2020 look only here; the field ends at 127.
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = _VERSIONS.get(name, 1)
            self.model.operatorCodes.append(code)
            self._codes[name] = len(self.model.operatorCodes) - 1
        return self._codes[name]

    def _tensor(self, shape: Sequence[int], kind: int = FLOAT32, buffer: int = 0) -> Value:
        tensor = self.schema.TensorT()
        tensor.shape = [int(n) for n in shape]
        tensor.type = kind
        tensor.buffer = buffer
        tensor.hasRank = True
        self.graph.tensors.append(tensor)
        return Value(len(self.graph.tensors) - 1, tuple(tensor.shape))

    def _entry(self, name: str, value: Value) -> Any:
        self.name(value, name)
        entry = self.schema.TensorMapT()
        entry.name, entry.tensorIndex = name, value.index
        return entry


def _joined(shape: Sequence[int], order: Sequence[int]) -> tuple[list[int], list[int]]:
    """The same transposition over fewer axes: those of length 1 left out, those that stay together joined."""
    runs: list[list[int]] = []
    for axis in (axis for axis in order if shape[axis] != 1):
        between = shape[runs[-1][-1] + 1 : axis] if runs else (0,)
        if runs and axis > runs[-1][-1] and all(n == 1 for n in between):
            runs[-1].append(axis)
        else:
            runs.append([axis])
    places = sorted(range(len(runs)), key=lambda i: runs[i][0])
    return [math.prod(shape[axis] for axis in runs[i]) for i in places], [places.index(i) for i in range(len(runs))]
