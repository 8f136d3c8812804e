"""How convolutions become TFLite operators.

TFLite has images as (B, H, W, C); ``tflite_layout`` transposes where they are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from edgemamba.errors import Unsupported
from edgemamba.stages import tflite_layout as layout
from edgemamba.stages.tflite_layout import Laid
from edgemamba.stages.tflite_ops import lowers
from edgemamba.stages.tflite_writer import Value

if TYPE_CHECKING:
    from edgemamba.stages.to_tflite import Lowering

aten = torch.ops.aten
NHWC = (0, 2, 3, 1)


@lowers(aten.conv2d.default)
def _conv2d(
    lowering: Lowering,
    node: Node,
    x: Laid,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Laid:
    weight, bias, activation, covered = lowering.follow(node, weight, bias)
    geometry = [([*v, *v][0], [*v, *v][1]) for v in (stride, padding, dilation)]
    y = _convolve(lowering, x, weight, bias, geometry, groups, activation)
    lowering.name(y.value, node)
    return lowering.done(covered, y)


@lowers(aten.conv1d.default)
def _conv1d(
    lowering: Lowering,
    node: Node,
    x: Laid,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Laid:
    """As an image of one row."""
    weight, bias, activation, covered = lowering.follow(node, weight, bias)
    batch, channels, length = x.shape
    image = layout.reshape(lowering.writer, x, (batch, channels, 1, length))
    geometry = [(1, stride[0]), (0, padding[0]), (1, dilation[0])]
    y = _convolve(lowering, image, weight[:, :, None], bias, geometry, groups, activation)
    lowering.name(y.value, node)
    return lowering.done(covered, layout.reshape(lowering.writer, y, lowering.shape(node)))


def _convolve(
    lowering: Lowering,
    x: Laid,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Sequence[tuple[int, int]],
    groups: int,
    activation: int,
) -> Laid:
    """CONV_2D or DEPTHWISE_CONV_2D; ``geometry`` is stride, padding and dilation, (height, width) each."""
    if not isinstance(weight, Tensor):
        raise Unsupported("a convolution whose weights are computed has no TFLite lowering", hint="use fixed weights")
    outputs, inputs = int(weight.shape[0]), int(weight.shape[1])
    x = layout.arrange(lowering.writer, x, NHWC)
    if groups > 1 and (groups != x.shape[1] or inputs != 1):
        return _in_groups(lowering, x, weight, bias, geometry, groups, activation)
    strides, pads, dilations = geometry
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    value, scheme, size = _padded(lowering, x.value, kernel, strides, pads, dilations)
    fields = {
        "padding": scheme,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": activation,
    }
    writer, shape = lowering.writer, [value.shape[0], *size, outputs]
    offsets = writer.constant((torch.zeros(outputs) if bias is None else bias).numpy())
    if groups > 1:
        fields["depthMultiplier"] = outputs // groups
        operands = [value, writer.constant(weight.permute(1, 2, 3, 0).numpy()), offsets]
        return Laid(writer.operator("DEPTHWISE_CONV_2D", operands, shape, "DepthwiseConv2DOptions", **fields), NHWC)
    operands = [value, writer.constant(weight.permute(0, 2, 3, 1).numpy()), offsets]
    return Laid(writer.operator("CONV_2D", operands, shape, "Conv2DOptions", **fields), NHWC)


def _in_groups(
    lowering: Lowering,
    x: Laid,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Sequence[tuple[int, int]],
    groups: int,
    activation: int,
) -> Laid:
    """One convolution for every group of channels, side by side: older runtimes have no other."""
    width, writer = x.shape[1] // groups, lowering.writer
    biases = [None] * groups if bias is None else [*bias.chunk(groups)]
    parts = []
    for group, (kernel, offset) in enumerate(zip(weight.chunk(groups), biases, strict=True)):
        piece = Laid(writer.slice(x.value, 3, group * width, (group + 1) * width), NHWC)
        parts.append(_convolve(lowering, piece, kernel, offset, geometry, 1, activation).value)
    return Laid(writer.concat(parts, 3), NHWC)


def _padded(
    lowering: Lowering,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Value, int, list[int]]:
    """Input, TFLite padding scheme and output size: SAME where it pads as torch does, else VALID after a
    PAD."""
    padding = lowering.writer.schema.Padding
    size, same = [], True
    for n, k, s, p, d in zip(x.shape[1:3], kernel, stride, pads, dilation, strict=True):
        reach = (k - 1) * d + 1
        size.append((n + 2 * p - reach) // s + 1)
        total = max(0, (math.ceil(n / s) - 1) * s + reach - n)
        same = same and size[-1] == math.ceil(n / s) and total == 2 * p
    if same:
        return x, padding.SAME, size
    padded = lowering.writer.pad(x, [(0, 0), (pads[0], pads[0]), (pads[1], pads[1]), (0, 0)])
    return padded, padding.VALID, size


@lowers(aten.conv_transpose2d.input)
def _conv_transpose2d(
    lowering: Lowering,
    node: Node,
    x: Laid,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    output_padding: Sequence[int] = (0, 0),
    groups: int = 1,
    dilation: Sequence[int] = (1, 1),
) -> Laid:
    if any(d != 1 for d in dilation) or any(o > p for o, p in zip(output_padding, padding, strict=True)):
        raise Unsupported(
            "a transposed convolution with dilation, or more output padding than padding, has no TFLite lowering",
            hint="use kernel 2 with stride 2, or kernel 4 with stride 2 and padding 1",
        )
    x = layout.arrange(lowering.writer, x, NHWC)
    if groups > 1:
        # Each group by itself, as a kernel that is zero between the groups.
        weight = torch.cat(
            [
                F.pad(part, (0, 0, 0, 0, i * part.shape[1], (groups - 1 - i) * part.shape[1]))
                for i, part in enumerate(weight.chunk(groups))
            ]
        )
    pads = [padding[0], padding[-1]]
    # Padding of a transposed convolution cuts its border off, output padding less of it behind.
    kernel = weight.shape[2:]
    sides = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], [stride[0], stride[-1]], kernel, strict=True)]
    size = [x.value.shape[0], *sides, weight.shape[1]]
    offsets = torch.zeros(weight.shape[1]) if bias is None else bias
    operands = [
        lowering.writer.integers(size),
        lowering.writer.constant(weight.permute(1, 2, 3, 0).numpy()),
        x.value,
        lowering.writer.constant(offsets.numpy()),
    ]
    scheme = lowering.writer.schema.Padding.VALID
    value = lowering.writer.operator(
        "TRANSPOSE_CONV",
        operands,
        size,
        "TransposeConvOptions",
        padding=scheme,
        strideH=stride[0],
        strideW=stride[-1],
    )
    lowering.name(value, node)
    for axis, (pad, side) in enumerate(zip(pads, lowering.shape(node)[2:], strict=True), 1):
        value = lowering.writer.slice(value, axis, pad, pad + side)
    return Laid(value, NHWC)


@lowers(aten.convolution.default)
def _convolution(
    lowering: Lowering,
    node: Node,
    x: Laid,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Laid:
    """Every convolution by its general name."""
    axes = len(x.order) - 2
    if axes == 1 and not transposed:
        return _conv1d(lowering, node, x, weight, bias, stride, padding, dilation, groups)
    if axes != 2:
        raise Unsupported(
            f"a {'transposed ' if transposed else ''}convolution over {axes} axes has no TFLite lowering",
            hint="use 2-D convolutions, or export to ONNX (--format onnx)",
        )
    if transposed:
        return _conv_transpose2d(lowering, node, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv2d(lowering, node, x, weight, bias, stride, padding, dilation, groups)


@lowers(aten.batch_norm.default)
def _batch_norm(
    lowering: Lowering,
    _: Node,
    x: Laid,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    __: bool,
    ___: float,
    eps: float,
    *____: Any,
) -> Laid:
    """After anything but a convolution, which takes it into its weights (``Lowering.follow``)."""
    scale = (1.0 if weight is None else weight) / torch.sqrt(variance + eps)
    shift = (0.0 if bias is None else bias) - mean * scale
    shape = (-1, *[1] * (len(x.order) - 2))
    scaled = lowering.binary("MUL", x, scale.reshape(shape))
    return lowering.binary("ADD", scaled, shift.reshape(shape))
