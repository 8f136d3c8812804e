"""How pooling and resizing become TFLite operators; what has none is a product with a constant matrix on each side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from edgemamba.errors import Unsupported
from edgemamba.stages import tflite_layout as layout
from edgemamba.stages.tflite_image_ops import NHWC
from edgemamba.stages.tflite_layout import Laid
from edgemamba.stages.tflite_math_ops import reduce
from edgemamba.stages.tflite_ops import linear, lowers

if TYPE_CHECKING:
    from edgemamba.stages.to_tflite import Lowering

aten = torch.ops.aten
LOWEST = float(np.finfo(np.float32).min)


@lowers(aten.max_pool2d.default)
def _max_pool2d(
    lowering: Lowering,
    node: Node,
    x: Laid,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Laid:
    del ceil_mode
    if any(d != 1 for d in dilation):
        raise Unsupported("a dilated pooling has no TFLite lowering", hint="pool without dilation")
    x = _padded(lowering, node, x, kernel, stride or kernel, padding, LOWEST)
    return _pool(lowering, node, "MAX_POOL_2D", x, kernel, stride)


@lowers(aten.max_pool2d_with_indices.default)
def _max_pool2d_with_indices(lowering: Lowering, node: Node, *arguments: Any) -> list[Laid | None]:
    return [_max_pool2d(lowering, node, *arguments), None]


@lowers(aten.avg_pool2d.default)
def _avg_pool2d(
    lowering: Lowering,
    node: Node,
    x: Laid,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Laid:
    if ceil_mode:
        raise Unsupported("an average pooling with ceil_mode has no TFLite lowering", hint="pool without it")
    size = x.shape[2:]
    padded = _padded(lowering, node, x, kernel, stride or kernel, padding, 0.0)
    y = _pool(lowering, node, "AVERAGE_POOL_2D", padded, kernel, stride)
    area = int(kernel[0]) * int(kernel[-1])
    if divisor is not None:
        return lowering.binary("MUL", y, area / divisor)
    if any(padding) and not count_padding:
        counted = F.avg_pool2d(torch.ones(1, 1, *size), [*kernel], [*(stride or kernel)], [*padding])
        return lowering.binary("DIV", y, counted)
    return y


def _padded(
    lowering: Lowering,
    node: Node,
    x: Laid,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    value: float,
) -> Laid:
    """The image with its border, as far as the windows reach."""
    val = node.meta["val"]
    sides = [int(n) for n in (val[0] if isinstance(val, tuple) else val).shape[2:]]
    pads = []
    for i, (n, out) in enumerate(zip(x.shape[2:], sides, strict=True)):
        k, s, p = (int([*v][-1 if len([*v]) == 1 else i]) for v in (kernel, stride, padding))
        pads.append((p, max(0, (out - 1) * s + k - n - p)))
    if not any(map(any, pads)):
        return x
    x = layout.arrange(lowering.writer, x, NHWC)
    return Laid(lowering.writer.pad(x.value, [(0, 0), *pads, (0, 0)], value), NHWC)


def _pool(lowering: Lowering, node: Node, name: str, x: Laid, kernel: Sequence[int], stride: Sequence[int]) -> Laid:
    x = layout.arrange(lowering.writer, x, NHWC)
    val = node.meta["val"]
    shape = [int(n) for n in (val[0] if isinstance(val, tuple) else val).shape]
    strides = [*(stride or kernel)]
    value = lowering.writer.operator(
        name,
        [x.value],
        [shape[axis] for axis in NHWC],
        "Pool2DOptions",
        padding=lowering.writer.schema.Padding.VALID,
        strideH=strides[0],
        strideW=strides[-1],
        filterHeight=kernel[0],
        filterWidth=kernel[-1],
    )
    return Laid(value, NHWC)


@lowers(aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default)
def _adaptive_avg_pool2d(lowering: Lowering, node: Node, x: Laid, _: Any) -> Laid:
    size, sides = x.shape[-2:], lowering.shape(node)[-2:]
    if sides == (1, 1):
        return reduce(lowering, "MEAN", x, (-2, -1), True)
    if len(x.order) == 4 and all(n % side == 0 for n, side in zip(size, sides, strict=True)):
        kernel = [n // side for n, side in zip(size, sides, strict=True)]
        return _pool(lowering, node, "AVERAGE_POOL_2D", x, kernel, kernel)
    return _by_sides(lowering, node, x, lambda eye, side: F.adaptive_avg_pool1d(eye, side))


@lowers(aten._adaptive_avg_pool3d.default, aten.adaptive_avg_pool1d.default)
def _adaptive_of_other_ranks(lowering: Lowering, _: Node, x: Laid, size: Sequence[int]) -> Laid:
    if any(side != 1 for side in size):
        raise Unsupported("an adaptive pooling to more than one bin has no TFLite lowering here", hint="pool in 2-D")
    return reduce(lowering, "MEAN", x, [*range(2, len(x.order))], True)


@lowers(aten.adaptive_max_pool2d.default)
def _adaptive_max_pool2d(lowering: Lowering, node: Node, x: Laid, _: Any) -> list[Laid | None]:
    sides = [int(n) for n in node.meta["val"][0].shape[-2:]]
    size = x.shape[-2:]
    if sides == [1, 1]:
        return [reduce(lowering, "REDUCE_MAX", x, (-2, -1), True), None]
    if any(n % side for n, side in zip(size, sides, strict=True)):
        raise Unsupported(
            f"an adaptive max pooling from {size} to {tuple(sides)} has no TFLite lowering",
            hint="choose an input size whose maps divide evenly",
        )
    kernel = [n // side for n, side in zip(size, sides, strict=True)]
    return [_pool(lowering, node, "MAX_POOL_2D", x, kernel, kernel), None]


@lowers(aten.upsample_bilinear2d.vec)
def _upsample_bilinear2d(lowering: Lowering, node: Node, x: Laid, _: Any, align_corners: bool, *__: Any) -> Laid:
    options = {"alignCorners": align_corners, "halfPixelCenters": not align_corners}
    return _resize(lowering, node, x, "RESIZE_BILINEAR", "ResizeBilinearOptions", options)


@lowers(aten.upsample_nearest2d.vec)
def _upsample_nearest2d(lowering: Lowering, node: Node, x: Laid, *_: Any) -> Laid:
    options = {"alignCorners": False, "halfPixelCenters": False}
    return _resize(lowering, node, x, "RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", options)


def _resize(lowering: Lowering, node: Node, x: Laid, name: str, table: str, options: dict[str, bool]) -> Laid:
    x = layout.arrange(lowering.writer, x, NHWC)
    shape = lowering.shape(node)
    operands = [x.value, lowering.writer.integers(shape[2:])]
    return Laid(lowering.writer.operator(name, operands, [shape[axis] for axis in NHWC], table, **options), NHWC)


@lowers(aten.upsample_bicubic2d.vec)
def _upsample_bicubic2d(lowering: Lowering, node: Node, x: Laid, _: Any, align_corners: bool, *__: Any) -> Laid:
    def bicubic(eye: Tensor, side: int) -> Tensor:
        size = (side, eye.shape[-1])
        return F.interpolate(eye.transpose(1, 2)[None], size, mode="bicubic", align_corners=align_corners)[0].transpose(
            1, 2
        )

    return _by_sides(lowering, node, x, bicubic)


def _by_sides(lowering: Lowering, node: Node, x: Laid, along: Callable[[Tensor, int], Tensor]) -> Laid:
    """A linear map of each side: ``along`` (1, n, n) -> (1, n, side) gives its matrix."""
    for axis in (-1, -2):
        side = lowering.shape(node)[axis]
        matrix = along(torch.eye(x.shape[axis])[None], side)[0].t().contiguous()
        axes = list(range(len(x.order)))
        axes[-1], axes[axis] = axes[axis], axes[-1]
        x = layout.permute(linear(lowering, node, layout.permute(x, axes), matrix), axes)
    return x
