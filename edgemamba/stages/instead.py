"""Operators that the ONNX exporter does not know, or gets wrong, in operators that it knows."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemamba.ssm import export_forms

aten = torch.ops.aten


def _select_scatter(x: Tensor, part: Tensor, axis: int, index: int) -> Tensor:
    index %= x.shape[axis]
    return _slice_scatter(x, part.unsqueeze(axis), axis, index, index + 1)


def _slice_scatter(
    x: Tensor, part: Tensor, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """``x`` with a slice replaced, as the pieces around it."""
    size = int(x.shape[axis])
    first, last, _ = slice(start, end).indices(size)
    if step != 1:
        # Interleaved: every position is taken from where it comes from.
        source = torch.arange(size)
        source[first:last:step] = size + torch.arange(len(range(first, last, step)))
        return torch.index_select(torch.cat([x, part], axis), axis, source)
    pieces = [part]
    if first > 0:
        pieces.insert(0, aten.slice.Tensor(x, axis, 0, first))
    if last < size:
        pieces.append(aten.slice.Tensor(x, axis, last, size))
    return torch.cat(pieces, axis)


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Positions on neighbouring axes, which become one axis: the exporter counts negative ones wrongly."""
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    known = [index for index in indices if index is not None]
    if axes != list(range(axes[0], axes[-1] + 1)) or any(index.dtype == torch.bool for index in known):
        return aten.index.Tensor(x, indices)
    places = torch.broadcast_tensors(*known)
    joined = torch.zeros_like(places[0])
    for axis, place in zip(axes, places, strict=True):
        joined = joined * int(x.shape[axis]) + place % int(x.shape[axis])
    before, after = ([int(n) for n in part] for part in (x.shape[: axes[0]], x.shape[axes[-1] + 1 :]))
    width = math.prod(int(x.shape[axis]) for axis in axes)
    taken = torch.index_select(x.reshape([*before, width, *after]), len(before), joined.reshape(-1))
    return taken.reshape([*before, *[int(n) for n in joined.shape], *after])


def _roll(x: Tensor, shifts: Sequence[int], axes: Sequence[int] = ()) -> Tensor:
    if axes:
        return torch.roll(x, tuple(shifts), tuple(axes))
    return torch.roll(x.reshape(-1), tuple(shifts), (0,)).reshape([int(n) for n in x.shape])


def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    del threshold
    return export_forms.softplus(x) if beta == 1 else export_forms.softplus(beta * x) / beta


def _avg_pool2d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Tensor:
    """The exporter forgets the divisor."""
    y = F.avg_pool2d(x, tuple(kernel), tuple(stride or kernel), tuple(padding), ceil_mode, count_padding)
    return y if divisor is None else y * (kernel[0] * kernel[-1] / divisor)


def _adaptive_avg_pool2d(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bins of unequal size as a product with a constant matrix on each side."""
    sides = [int(n) for n in x.shape[-2:]]
    if all(n % side == 0 for n, side in zip(sides, size, strict=True)):
        return F.adaptive_avg_pool2d(x, (size[0], size[1]))
    rows, columns = (F.adaptive_avg_pool1d(torch.eye(n)[None], side)[0] for n, side in zip(sides, size, strict=True))
    return torch.matmul(torch.matmul(rows.t().contiguous(), x), columns)


def _to(x: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return x if dtype is None else x.to(dtype)


def _sum(x: Tensor, axes: Sequence[int] | None = None, keep: bool = False, **_: Any) -> Tensor:
    """No axes are all axes; the exporter writes an empty list of the wrong type."""
    return torch.sum(x, list(axes or range(x.dim())), keep)


INSTEAD: dict[Any, Callable[..., Any]] = {
    torch.ops.edgemamba.two_pass.default: export_forms.two_pass,
    torch.ops.edgemamba.sequential.default: export_forms.sequential,
    aten.select_scatter.default: _select_scatter,
    aten.slice_scatter.default: _slice_scatter,
    aten.index.Tensor: _index,
    aten._unsafe_index.Tensor: _index,
    aten.embedding.default: lambda table, index, *_: _index(table, [index]),
    aten.roll.default: _roll,
    aten.softplus.default: _softplus,
    aten.avg_pool2d.default: _avg_pool2d,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
    aten._to_copy.default: _to,
    aten.constant_pad_nd.default: lambda x, pads, value=0.0: F.pad(x, tuple(pads), value=float(value)),
    aten.bitwise_and.Tensor: torch.logical_and,
    aten.bitwise_or.Tensor: torch.logical_or,
    aten.bitwise_not.default: torch.logical_not,
    aten.expm1.default: lambda x: torch.exp(x) - 1,
    aten.sum.default: lambda x, **_: _sum(x),
    aten.sum.dim_IntList: _sum,
    operator.getitem: operator.getitem,
}
