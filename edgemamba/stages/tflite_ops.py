"""How each torch operator becomes TFLite operators: shapes, products, the scan.

A lowering is a function of the ``Lowering`` in progress, the graph node and the node's arguments, in which
tensors of the graph are ``Laid`` and everything computed from weights alone is a ``torch.Tensor``. A new
layer that needs another operator adds a function here or in one of the modules of ``tflite_lowerings``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.fx import Node

import edgemamba.ssm.scan_op
from edgemamba.errors import Unsupported
from edgemamba.stages import tflite_layout as layout
from edgemamba.stages import tflite_scan
from edgemamba.stages.tflite_layout import Laid
from edgemamba.stages.tflite_writer import Value

if TYPE_CHECKING:
    from edgemamba.stages.to_tflite import Lowering

aten = torch.ops.aten
F = TypeVar("F", bound=Callable[..., Any])
LOWERINGS: dict[Any, Callable[..., Any]] = {}
# BATCH_MATMUL takes up to so many axes.
_PRODUCT_AXES = 4


def lowers(*targets: Any) -> Callable[[F], F]:
    """Register a lowering for torch operators."""

    def register(function: F) -> F:
        LOWERINGS.update(dict.fromkeys(targets, function))
        return function

    return register


@lowers(
    aten.alias.default,
    aten.detach.default,
    aten.detach_.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,
    aten.feature_dropout.default,
)
def _same(_: Lowering, __: Node, x: Laid, *___: Any, **____: Any) -> Laid:
    return x


@lowers(aten.permute.default)
def _permute(_: Lowering, __: Node, x: Laid, axes: Sequence[int]) -> Laid:
    return layout.permute(x, axes)


@lowers(aten.t.default)
def _t(_: Lowering, __: Node, x: Laid) -> Laid:
    return layout.permute(x, (1, 0))


@lowers(aten.transpose.int)
def _transpose(_: Lowering, __: Node, x: Laid, first: int, second: int) -> Laid:
    axes = list(range(len(x.order)))
    axes[first], axes[second] = axes[second], axes[first]
    return layout.permute(x, axes)


@lowers(
    aten.reshape.default,
    aten.view.default,
    aten._unsafe_view.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.flatten.using_ints,
)
def _reshape(lowering: Lowering, node: Node, x: Laid, *_: Any) -> Laid:
    return layout.reshape(lowering.writer, x, lowering.shape(node))


@lowers(aten.clone.default, aten.contiguous.default)
def _clone(lowering: Lowering, _: Node, x: Laid, **__: Any) -> Laid:
    """A copy in torch's order: how a network says where it wants a transposition."""
    return layout.arrange(lowering.writer, x, range(len(x.order)))


@lowers(aten.slice.Tensor)
def _slice(
    lowering: Lowering,
    _: Node,
    x: Laid,
    axis: int = 0,
    begin: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Laid:
    first, last, _step = slice(begin, end).indices(x.shape[axis])
    at = x.stored(axis)
    if step != 1:
        return Laid(lowering.writer.strided(x.value, at, first, last, step), x.order)
    return Laid(lowering.writer.slice(x.value, at, first, last), x.order)


@lowers(aten.select.int)
def _select(lowering: Lowering, node: Node, x: Laid, axis: int, index: int) -> Laid:
    index %= x.shape[axis]
    piece = Laid(lowering.writer.slice(x.value, x.stored(axis), index, index + 1), x.order)
    return layout.reshape(lowering.writer, piece, lowering.shape(node))


@lowers(aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)
def _split(lowering: Lowering, node: Node, x: Laid, _: Any, axis: int = 0) -> list[Laid]:
    pieces, begin, at = [], 0, x.stored(axis)
    for part in node.meta["val"]:
        end = begin + int(part.shape[axis])
        pieces.append(Laid(lowering.writer.slice(x.value, at, begin, end), x.order))
        begin = end
    return pieces


@lowers(aten.cat.default)
def _cat(lowering: Lowering, _: Node, parts: Sequence[Laid | Tensor], axis: int = 0) -> Laid:
    order = next(part.order for part in parts if isinstance(part, Laid))
    values = [lowering.stored(part, order) for part in parts]
    return Laid(lowering.writer.concat(values, order.index(axis % len(order))), order)


@lowers(aten.pad.default, aten.constant_pad_nd.default)
def _pad(lowering: Lowering, _: Node, x: Laid, pads: Sequence[int], *mode: Any) -> Laid:
    """A constant outside, 0 unless told; a negative count cuts off."""
    if any(isinstance(entry, str) and entry != "constant" for entry in mode):
        raise Unsupported(f"padding with {mode[0]} has no TFLite lowering", hint="pad with a constant")
    fill = next((float(entry) for entry in mode if isinstance(entry, int | float)), 0.0)
    value, paddings = x.value, [(0, 0)] * len(x.order)
    for i in range(len(pads) // 2):
        before, after = pads[2 * i], pads[2 * i + 1]
        at = x.stored(-1 - i)
        value = lowering.writer.slice(value, at, max(0, -before), value.shape[at] - max(0, -after))
        paddings[at] = (max(0, before), max(0, after))
    return Laid(lowering.writer.pad(value, paddings, fill), x.order)


@lowers(aten.softmax.int, aten._softmax.default)
def _softmax(lowering: Lowering, _: Node, x: Laid, axis: int, *__: Any) -> Laid:
    """TFLite's runs along the last stored axis."""
    rank = len(x.order)
    last = axis % rank
    x = layout.arrange(lowering.writer, x, (*(i for i in range(rank) if i != last), last))
    value = lowering.writer.operator("SOFTMAX", [x.value], [*x.value.shape], "SoftmaxOptions", beta=1.0)
    return Laid(value, x.order)


@lowers(aten.flip.default)
def _flip(lowering: Lowering, _: Node, x: Laid, axes: Sequence[int]) -> Laid:
    value = x.value
    for axis in axes:
        operands = [value, lowering.writer.integers([x.stored(axis)])]
        value = lowering.writer.operator("REVERSE_V2", operands, [*value.shape], "ReverseV2Options")
    return Laid(value, x.order)


@lowers(aten.linear.default)
def linear(lowering: Lowering, node: Node, x: Laid, weight: Tensor, bias: Tensor | None = None) -> Laid:
    """A product with a constant matrix (outputs, inputs) along the last axis."""
    last = len(x.order) - 1
    x = layout.arrange(lowering.writer, x, (*(axis for axis in x.order if axis != last), last))
    return Laid(_fully_connected(lowering, node, x.value, weight, bias), x.order)


@lowers(aten.matmul.default, aten.mm.default, aten.bmm.default)
def matmul(lowering: Lowering, node: Node, a: Laid | Tensor, b: Laid | Tensor) -> Laid:
    """A product of which at least one side is in the graph."""
    if isinstance(b, Tensor) and b.dim() == 2 and isinstance(a, Laid):
        return linear(lowering, node, a, b.t())
    if isinstance(a, Tensor) and a.dim() == 2 and isinstance(b, Laid) and b.order[-1] == len(b.order) - 2:
        # a b = (b^T a^T)^T, and b is stored as b^T.
        return Laid(_fully_connected(lowering, node, b.value, a, None), b.order)
    if min(len(lowering.dims(x)) for x in (a, b)) == 1:
        raise Unsupported("a product with a vector has no TFLite lowering", hint="give the vector a second axis")
    left, right = (lowering.stored(x, range(len(lowering.dims(x)))) for x in (a, b))
    if max(len(left.shape), len(right.shape)) > _PRODUCT_AXES:
        return _batched(lowering, node, left, right)
    if isinstance(a, Tensor) and len(right.shape) > len(left.shape):
        # XNNPACK wants equal batches; a matrix repeated is cheap, an operator left out of it is not.
        repeated = a.expand(*right.shape[:-2], *a.shape)
        left = lowering.writer.constant(repeated.numpy())
    value = lowering.writer.operator(
        "BATCH_MATMUL", [left, right], lowering.shape(node), "BatchMatMulOptions", adjX=False, adjY=False
    )
    lowering.name(value, node)
    return layout.plain(value)


def _batched(lowering: Lowering, node: Node, left: Value, right: Value) -> Laid:
    """A product over more batch axes than the operator takes: they become one."""
    writer, shape = lowering.writer, lowering.shape(node)
    batch = shape[:-2]
    parts = []
    for value in (left, right):
        whole = (*batch, *value.shape[-2:])
        tiled = writer.tile(writer.reshape(value, (1,) * (len(whole) - len(value.shape)) + value.shape), whole)
        parts.append(writer.reshape(tiled, (math.prod(batch), *value.shape[-2:])))
    flat = [math.prod(batch), *shape[-2:]]
    value = writer.operator("BATCH_MATMUL", parts, flat, "BatchMatMulOptions", adjX=False, adjY=False)
    lowering.name(value, node)
    return layout.plain(writer.reshape(value, shape))


@lowers(aten.addmm.default)
def _addmm(lowering: Lowering, node: Node, bias: Any, a: Laid | Tensor, b: Laid | Tensor) -> Laid:
    return lowering.binary("ADD", matmul(lowering, node, a, b), bias)


def _fully_connected(lowering: Lowering, node: Node, x: Value, weight: Tensor, bias: Tensor | None) -> Value:
    if not isinstance(weight, Tensor):
        raise Unsupported("a linear layer whose weights are computed has no TFLite lowering", hint="use torch.matmul")
    operands = [x, lowering.writer.constant(weight.numpy())]
    if bias is not None:
        operands.append(lowering.writer.constant(bias.numpy()))
    value = lowering.writer.operator(
        "FULLY_CONNECTED",
        operands,
        [*x.shape[:-1], weight.shape[0]],
        "FullyConnectedOptions",
        keepNumDims=len(x.shape) > 2,
    )
    lowering.name(value, node)
    return value


@lowers(torch.ops.edgemamba.two_pass.default)
def _two_pass(lowering: Lowering, _: Node, *arguments: Any) -> Laid:
    dt, u, A, B, C = (lowering.stored(x, range(4)) for x in arguments[:5])
    return layout.plain(tflite_scan.two_pass(lowering.writer, dt, u, A, B, C, *arguments[5:]))


@lowers(torch.ops.edgemamba.sequential.default)
def _sequential(lowering: Lowering, _: Node, *tensors: Any) -> Laid:
    dt, u, A, B, C = (lowering.stored(x, range(4)) for x in tensors)
    return layout.plain(tflite_scan.sequential(lowering.writer, dt, u, A, B, C))


assert edgemamba.ssm.scan_op  # its import registers the two operators above
