"""Tensors that know how they are stored: a permutation costs nothing until an operator needs another order.

PyTorch convolves images as (B, C, H, W), TFLite as (B, H, W, C). A value of the torch graph is kept as a
TFLite tensor plus the order of its axes; permutations change only the order, reshapes keep it wherever they
can, and a TRANSPOSE is written only where an operator asks for an order that is not there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from edgemamba.stages.tflite_writer import GraphWriter, Value

# Elements from which on a broadcast row is worth its overhead.
ROW = 64


@dataclasses.dataclass(frozen=True)
class Laid:
    """A torch tensor of the graph.

    Attributes:
        value: the TFLite tensor that holds it.
        order: stored axis i is torch axis ``order[i]``.
    """

    value: Value
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that torch sees."""
        shape = [0] * len(self.order)
        for size, axis in zip(self.value.shape, self.order, strict=True):
            shape[axis] = size
        return tuple(shape)

    def stored(self, axis: int) -> int:
        """Stored position of a torch axis, which may be negative."""
        return self.order.index(axis % len(self.order))


def plain(value: Value) -> Laid:
    """A tensor stored in torch's own order."""
    return Laid(value, tuple(range(len(value.shape))))


def arrange(writer: GraphWriter, x: Laid, order: Sequence[int]) -> Laid:
    """``x`` stored in ``order``: as it is, reshaped if only axes of length 1 move, else transposed."""
    order = tuple(order)
    if order == x.order:
        return x
    shape = x.shape
    target = [shape[axis] for axis in order]
    if _long(x.order, shape) == _long(order, shape):
        return Laid(writer.reshape(x.value, target), order)
    moves = [x.order.index(axis) for axis in order]
    return Laid(writer.transpose(x.value, moves), order)


def permute(x: Laid, axes: Sequence[int]) -> Laid:
    """torch.permute: no operator."""
    place = {axis % len(axes): new for new, axis in enumerate(axes)}
    return Laid(x.value, tuple(place[axis] for axis in x.order))


def reshape(writer: GraphWriter, x: Laid, shape: Sequence[int]) -> Laid:
    """torch.reshape, in the stored order if every group of axes that is split or joined lies together in
    it."""
    shape = tuple(shape)
    if shape == x.shape:
        return x
    order = _order_after(x, shape)
    if order is None:
        return plain(writer.reshape(arrange(writer, x, range(len(x.order))).value, shape))
    return Laid(writer.reshape(x.value, [shape[axis] for axis in order]), order)


def align(x: Laid, rank: int) -> Laid:
    """Axes of length 1 in front, as broadcasting has them: no operator, TFLite broadcasts by itself."""
    extra = rank - len(x.order)
    order = (*range(extra), *(axis + extra for axis in x.order))
    return Laid(Value(x.value.index, (1,) * extra + x.value.shape), order)


def reduced_order(x: Laid, axes: Sequence[int]) -> tuple[int, ...]:
    """Order of what is left when the torch ``axes`` are gone."""
    gone = {axis % len(x.order) for axis in axes}
    left = [axis for axis in x.order if axis not in gone]
    rank = {axis: new for new, axis in enumerate(sorted(left))}
    return tuple(rank[axis] for axis in left)


def _long(order: Sequence[int], shape: Sequence[int]) -> list[int]:
    return [axis for axis in order if shape[axis] != 1]


def _order_after(x: Laid, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Stored order of ``x`` reshaped to ``shape`` without moving elements, or None if they would have to
    move."""
    old = x.shape
    stored = _long(x.order, old)
    order: list[int] = []
    replaced: dict[int, list[int]] = {}
    for before, after in _groups(old, shape):
        at = [stored.index(axis) for axis in before]
        if at != list(range(at[0], at[0] + len(at))):
            return None
        replaced[before[0]] = after
        replaced.update({axis: [] for axis in before[1:]})
    for axis in stored:
        order += replaced[axis]
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    if order == sorted(order):
        return tuple(range(len(shape)))
    return (*ones, *order)


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of axes, those of length 1 left out, whose sizes multiply to the same number in old and
    new."""
    before = [axis for axis, size in enumerate(old) if size != 1]
    after = [axis for axis, size in enumerate(new) if size != 1]
    groups: list[tuple[list[int], list[int]]] = []
    while before or after:
        left, right = [before.pop(0)], [after.pop(0)]
        while (a := math.prod(old[i] for i in left)) != (b := math.prod(new[i] for i in right)):
            if a < b:
                left.append(before.pop(0))
            else:
                right.append(after.pop(0))
        groups.append((left, right))
    return groups


def elementwise(writer: GraphWriter, name: str, a: Value, b: Value) -> Value:
    """An operator on two stored tensors, broadcast.

    A vector of few channels against an image would be applied pixel by pixel; pixels are put together until a
    row is long enough for the vector unit, and the vector is repeated.
    """
    image, vector = (a, b) if math.prod(a.shape) >= math.prod(b.shape) else (b, a)
    width = vector.shape[-1] if vector.shape else 1
    pixels = math.prod(image.shape[:-1])
    if (
        not image.shape
        or math.prod(vector.shape) != width
        or image.shape[-1] != width
        or not 1 < width < ROW
        or pixels < ROW
    ):
        return writer.binary(name, a, b)
    repeat = 1
    while repeat * width < ROW and pixels % (2 * repeat) == 0:
        repeat *= 2
    wide = writer.reshape(image, (pixels // repeat, repeat * width))
    row = writer.repeat(vector, repeat)
    operands = (wide, row) if image is a else (row, wide)
    return writer.reshape(writer.binary(name, *operands), image.shape)
