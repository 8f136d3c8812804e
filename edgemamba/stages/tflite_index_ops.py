"""How taking, writing, repeating and turning parts of a tensor becomes TFLite operators; positions are constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgemamba.errors import Unsupported
from edgemamba.stages import tflite_layout as layout
from edgemamba.stages.tflite_layout import Laid
from edgemamba.stages.tflite_math_ops import whole
from edgemamba.stages.tflite_ops import lowers

if TYPE_CHECKING:
    from edgemamba.stages.to_tflite import Lowering

aten = torch.ops.aten
_HINT = "compute the positions from sizes alone, so that they are constants of the graph"


@lowers(aten.expand.default, aten.expand_as.default, aten.broadcast_to.default)
def _expand(lowering: Lowering, node: Node, x: Laid, *_: Any, **__: Any) -> Laid:
    shape = lowering.shape(node)
    x = layout.reshape(lowering.writer, x, (1,) * (len(shape) - len(x.order)) + x.shape)
    return Laid(lowering.writer.tile(x.value, [shape[axis] for axis in x.order]), x.order)


@lowers(aten.repeat.default)
def _repeat(lowering: Lowering, node: Node, x: Laid, _: Any) -> Laid:
    return _expand(lowering, node, x)


@lowers(aten.unbind.int)
def _unbind(lowering: Lowering, node: Node, x: Laid, axis: int = 0) -> list[Laid]:
    pieces, at = [], x.stored(axis)
    for index, part in enumerate(node.meta["val"]):
        piece = Laid(lowering.writer.slice(x.value, at, index, index + 1), x.order)
        pieces.append(layout.reshape(lowering.writer, piece, [int(n) for n in part.shape]))
    return pieces


@lowers(aten.stack.default)
def _stack(lowering: Lowering, node: Node, parts: Sequence[Laid | Tensor], axis: int = 0) -> Laid:
    shape = list(lowering.shape(node))
    axis %= len(shape)
    shape[axis] = 1
    first = next(part for part in parts if isinstance(part, Laid))
    order = layout.reshape(lowering.writer, first, shape).order
    values = []
    for part in parts:
        wide = part.reshape(shape) if isinstance(part, Tensor) else layout.reshape(lowering.writer, part, shape)
        values.append(lowering.stored(wide, order))
    return Laid(lowering.writer.concat(values, order.index(axis)), order)


@lowers(aten.roll.default)
def _roll(lowering: Lowering, _: Node, x: Laid, shifts: Sequence[int], axes: Sequence[int] = ()) -> Laid:
    if not axes:
        flat = layout.reshape(lowering.writer, x, (torch.Size(x.shape).numel(),))
        return layout.reshape(lowering.writer, _roll(lowering, _, flat, shifts, (0,)), x.shape)
    value = x.value
    for shift, axis in zip(shifts, axes, strict=True):
        at, size = x.stored(axis), x.shape[axis]
        cut = -shift % size
        if cut:
            parts = [lowering.writer.slice(value, at, cut, size), lowering.writer.slice(value, at, 0, cut)]
            value = lowering.writer.concat(parts, at)
    return Laid(value, x.order)


@lowers(aten.pixel_shuffle.default)
def _pixel_shuffle(lowering: Lowering, node: Node, x: Laid, factor: int) -> Laid:
    *batch, channels, height, width = x.shape
    n, inner = len(batch), channels // factor**2
    wide = layout.reshape(lowering.writer, x, (*batch, inner, factor, factor, height, width))
    wide = layout.permute(wide, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return layout.reshape(lowering.writer, wide, lowering.shape(node))


@lowers(aten.index_select.default)
def _index_select(lowering: Lowering, _: Node, x: Laid | Tensor, axis: int, index: Laid | Tensor) -> Laid:
    return take(lowering, _graph(lowering, x), axis, _constant(index).tolist())


def take(lowering: Lowering, x: Laid, axis: int, index: Sequence[int]) -> Laid:
    """Positions ``index`` along a torch axis: a slice, a reversal or a GATHER."""
    size, at, writer = x.shape[axis], x.stored(axis), lowering.writer
    index = [i % size for i in index]
    if index == list(range(index[0], index[0] + len(index))):
        return Laid(writer.slice(x.value, at, index[0], index[0] + len(index)), x.order)
    if index == list(range(size))[::-1]:
        value = writer.operator("REVERSE_V2", [x.value, writer.integers([at])], [*x.value.shape], "ReverseV2Options")
        return Laid(value, x.order)
    return Laid(writer.gather(x.value, at, index), x.order)


@lowers(aten.index.Tensor, aten._unsafe_index.Tensor)
def _index(lowering: Lowering, node: Node, x: Laid | Tensor, indices: Sequence[Any]) -> Laid:
    """Constant positions on neighbouring axes: these become one axis, and the positions count along it."""
    x = _graph(lowering, x)
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    first, last = axes[0], axes[-1]
    if axes != list(range(first, last + 1)):
        raise Unsupported(
            "positions on axes that are apart have no TFLite lowering", hint="take them one after another"
        )
    places = torch.broadcast_tensors(*[_positions(index) for index in indices if index is not None])
    joined = torch.zeros_like(places[0])
    for axis, place in zip(axes, places, strict=True):
        joined = joined * x.shape[axis] + place % x.shape[axis]
    flat = layout.reshape(
        lowering.writer, x, (*x.shape[:first], -1 if not axes else _product(x, axes), *x.shape[last + 1 :])
    )
    taken = take(lowering, flat, first, joined.reshape(-1).tolist())
    return layout.reshape(lowering.writer, taken, lowering.shape(node))


def _positions(index: Laid | Tensor) -> Tensor:
    """Positions of an index tensor; of a mask, where it is true."""
    index = _constant(index)
    if index.dtype == torch.bool:
        if index.dim() != 1:
            raise Unsupported("a mask of several axes as an index has no TFLite lowering", hint="use torch.where")
        return index.nonzero()[:, 0]
    return index


def _product(x: Laid, axes: Sequence[int]) -> int:
    return int(torch.Size([x.shape[axis] for axis in axes]).numel())


@lowers(aten.gather.default)
def _gather(lowering: Lowering, node: Node, x: Laid | Tensor, axis: int, index: Laid | Tensor, **_: Any) -> Laid:
    x, place = _graph(lowering, x), _constant(index)
    axis %= place.dim()
    grid = torch.meshgrid(*[torch.arange(n) for n in place.shape], indexing="ij")
    indices = [place if i == axis else along for i, along in enumerate(grid)]
    rows = place.movedim(axis, 0).reshape(place.shape[axis], -1)
    same = all(n == m for i, (n, m) in enumerate(zip(place.shape, x.shape, strict=True)) if i != axis)
    if same and bool((rows == rows[:, :1]).all()):
        return take(lowering, x, axis, rows[:, 0].tolist())
    return _index(lowering, node, x, indices)


@lowers(aten.select_scatter.default)
def _select_scatter(
    lowering: Lowering, node: Node, x: Laid | Tensor, part: Laid | Tensor, axis: int, index: int
) -> Laid:
    shape = lowering.shape(node)
    axis, index = axis % len(shape), index % shape[axis]
    one = [1 if i == axis else n for i, n in enumerate(shape)]
    wide = part.reshape(one) if isinstance(part, Tensor) else layout.reshape(lowering.writer, part, one)
    return _slice_scatter(lowering, node, x, wide, axis, index, index + 1)


@lowers(aten.slice_scatter.default)
def _slice_scatter(
    lowering: Lowering,
    node: Node,
    x: Laid | Tensor,
    part: Laid | Tensor,
    axis: int = 0,
    begin: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Laid:
    """``x`` with a slice replaced: the pieces around it joined to the new one, interleaved if it has a step."""
    shape = lowering.shape(node)
    axis, size = axis % len(shape), shape[axis % len(shape)]
    first, last, _ = slice(begin, end).indices(size)
    order = next(item.order for item in (x, part) if isinstance(item, Laid))
    old, new = (lowering.stored(item, order) for item in (x, part))
    writer, at = lowering.writer, order.index(axis)
    if step != 1:
        source = list(range(size))
        source[first:last:step] = range(size, size + len(range(first, last, step)))
        return Laid(writer.gather(writer.concat([old, new], at), at, source), order)
    pieces = [new]
    if first > 0:
        pieces.insert(0, writer.slice(old, at, 0, first))
    if last < size:
        pieces.append(writer.slice(old, at, last, size))
    return Laid(writer.concat(pieces, at), order)


@lowers(aten.embedding.default)
def _embedding(lowering: Lowering, node: Node, table: Laid | Tensor, index: Laid | Tensor, *_: Any) -> Laid:
    return _index(lowering, node, table, [index])


def _graph(lowering: Lowering, x: Laid | Tensor) -> Laid:
    return x if isinstance(x, Laid) else layout.plain(whole(lowering, x, x.shape))


def _constant(index: Laid | Tensor) -> Tensor:
    if isinstance(index, Laid):
        raise Unsupported("positions that depend on the image have no TFLite lowering", hint=_HINT)
    return index
