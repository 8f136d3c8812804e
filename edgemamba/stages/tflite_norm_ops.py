"""How normalisations become TFLite operators: means, differences and products over whole images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgemamba.stages import tflite_layout as layout
from edgemamba.stages.tflite_layout import Laid
from edgemamba.stages.tflite_math_ops import reduce, unary
from edgemamba.stages.tflite_ops import lowers, matmul

if TYPE_CHECKING:
    from edgemamba.stages.to_tflite import Lowering

aten = torch.ops.aten


@lowers(aten.layer_norm.default)
def _layer_norm(
    lowering: Lowering,
    _: Node,
    x: Laid,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *__: Any,
) -> Laid:
    axes = range(-len(shape), 0)
    centred = lowering.binary("SUB", x, reduce(lowering, "MEAN", x, axes, True))
    variance = reduce(lowering, "MEAN", lowering.binary("MUL", centred, centred), axes, True)
    return _scaled(lowering, centred, variance, eps, weight, bias)


@lowers(aten.group_norm.default)
def _group_norm(
    lowering: Lowering,
    node: Node,
    x: Laid,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Laid:
    """Statistics of every channel first, then of its group by a constant matrix: nothing has more than four axes."""
    channels = x.shape[1]
    width = channels // groups
    within = torch.block_diag(*[torch.full((width, width), 1 / width)] * groups)
    return _over_pixels(lowering, node, x, within if width > 1 else None, weight, bias, eps)


@lowers(aten.instance_norm.default)
def _instance_norm(
    lowering: Lowering,
    node: Node,
    x: Laid,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    by_input: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Laid:
    del momentum
    if by_input or mean is None or variance is None:
        return _over_pixels(lowering, node, x, None, weight, bias, eps)
    shape = (-1, *[1] * (len(x.order) - 2))
    centred = lowering.binary("SUB", x, mean.reshape(shape))
    factor = torch.rsqrt(variance + eps) * (1.0 if weight is None else weight)
    y = lowering.binary("MUL", centred, factor.reshape(shape))
    return y if bias is None else lowering.binary("ADD", y, bias.reshape(shape))


def _over_pixels(
    lowering: Lowering,
    node: Node,
    x: Laid,
    within: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Laid:
    """Normalise (B, C, ...) by the statistics of every channel, or of the channels that ``within`` averages."""
    axes = range(2, len(x.order))

    def mean(value: Laid) -> Laid:
        # Axis by axis: one sum over a whole image loses two digits, which deep networks magnify to a failed parity.
        found = value
        for axis in reversed(axes):
            found = reduce(lowering, "MEAN", found, [axis], True)
        if within is None:
            return found
        rows = layout.reshape(lowering.writer, found, found.shape[:2])
        return layout.reshape(lowering.writer, matmul(lowering, node, rows, within), found.shape)

    centred = lowering.binary("SUB", x, mean(x))
    variance = mean(lowering.binary("MUL", centred, centred))
    shape = (-1, *[1] * len(axes))
    scale, shift = (None if part is None else part.reshape(shape) for part in (weight, bias))
    return _scaled(lowering, centred, variance, eps, scale, shift)


def _scaled(
    lowering: Lowering, centred: Laid, variance: Laid, eps: float, weight: Tensor | None, bias: Tensor | None
) -> Laid:
    factor = unary(lowering, "RSQRT", lowering.binary("ADD", variance, eps))
    y = lowering.binary("MUL", centred, factor)
    y = y if weight is None else lowering.binary("MUL", y, weight)
    return y if bias is None else lowering.binary("ADD", y, bias)
