"""How arithmetic becomes TFLite operators: elementwise functions, comparisons, reductions, types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from edgemamba.errors import Unsupported
from edgemamba.stages import tflite_layout as layout
from edgemamba.stages.tflite_layout import Laid
from edgemamba.stages.tflite_ops import lowers

if TYPE_CHECKING:
    from edgemamba.stages.to_tflite import Lowering

aten = torch.ops.aten

_BINARY: dict[str, tuple[Any, ...]] = {
    "MUL": (aten.mul.Tensor, aten.mul_.Tensor, aten.mul.Scalar),
    "DIV": (aten.div.Tensor, aten.div_.Tensor, aten.div.Scalar),
    "MAXIMUM": (aten.maximum.default, aten.clamp_min.default, aten.clamp_min.Tensor),
    "MINIMUM": (aten.minimum.default, aten.clamp_max.default, aten.clamp_max.Tensor),
    "POW": (aten.pow.Tensor_Tensor,),
    "GREATER": (aten.gt.Scalar, aten.gt.Tensor),
    "GREATER_EQUAL": (aten.ge.Scalar, aten.ge.Tensor),
    "LESS": (aten.lt.Scalar, aten.lt.Tensor),
    "LESS_EQUAL": (aten.le.Scalar, aten.le.Tensor),
    "EQUAL": (aten.eq.Scalar, aten.eq.Tensor),
    "NOT_EQUAL": (aten.ne.Scalar, aten.ne.Tensor),
    "LOGICAL_AND": (aten.logical_and.default, aten.bitwise_and.Tensor),
    "LOGICAL_OR": (aten.logical_or.default, aten.bitwise_or.Tensor),
}
_SUMS: dict[str, tuple[Any, ...]] = {
    "ADD": (aten.add.Tensor, aten.add_.Tensor, aten.add.Scalar),
    "SUB": (aten.sub.Tensor, aten.sub_.Tensor, aten.sub.Scalar),
}
_UNARY: dict[str, tuple[Any, ...]] = {
    "EXP": (aten.exp.default,),
    "LOG": (aten.log.default,),
    "ABS": (aten.abs.default,),
    "NEG": (aten.neg.default,),
    "RSQRT": (aten.rsqrt.default,),
    "SQRT": (aten.sqrt.default,),
    "RELU": (aten.relu.default, aten.relu_.default),
    "RELU6": (aten.relu6.default, aten.relu6_.default),
    "LOGISTIC": (aten.sigmoid.default, aten.sigmoid_.default),
    "TANH": (aten.tanh.default, aten.tanh_.default),
    "HARD_SWISH": (aten.hardswish.default, aten.hardswish_.default),
    "ELU": (aten.elu.default,),
    "SIN": (aten.sin.default,),
    "COS": (aten.cos.default,),
    "FLOOR": (aten.floor.default,),
    "LOGICAL_NOT": (aten.logical_not.default, aten.bitwise_not.default),
}


def unary(lowering: Lowering, name: str, x: Laid) -> Laid:
    """An operator on one tensor, however it is stored."""
    return Laid(lowering.writer.unary(name, x.value), x.order)


def reduce(lowering: Lowering, name: str, x: Laid, axes: Sequence[int] | int | None, keep: bool = False) -> Laid:
    """SUM, MEAN, REDUCE_MAX or REDUCE_MIN over torch axes; none given: over all."""
    axes = [axes] if isinstance(axes, int) else [*(axes or range(len(x.order)))]
    value = lowering.writer.reduce(name, x.value, [x.stored(axis) for axis in axes], keep=keep)
    return Laid(value, x.order if keep else layout.reduced_order(x, axes))


def _binary(name: str) -> Callable[..., Laid]:
    def lower(lowering: Lowering, _: Node, a: Any, b: Any) -> Laid:
        return lowering.binary(name, a, b)

    return lower


def _sum(name: str) -> Callable[..., Laid]:
    def lower(lowering: Lowering, _: Node, a: Any, b: Any, *, alpha: float = 1) -> Laid:
        return lowering.binary(name, a, b if alpha == 1 else scaled(lowering, b, alpha))

    return lower


def scaled(lowering: Lowering, x: Any, factor: float) -> Any:
    """``factor * x`` of a tensor of the graph or a constant."""
    return lowering.binary("MUL", x, factor) if isinstance(x, Laid) else factor * x


def _unary(name: str) -> Callable[..., Laid]:
    def lower(lowering: Lowering, _: Node, x: Laid, *options: Any) -> Laid:
        if any(option != 1 for option in options):
            raise Unsupported(f"{name} with {options} has no TFLite lowering", hint="leave its parameters as they are")
        return unary(lowering, name, x)

    return lower


for _name, _targets in _BINARY.items():
    lowers(*_targets)(_binary(_name))
for _name, _targets in _SUMS.items():
    lowers(*_targets)(_sum(_name))
for _name, _targets in _UNARY.items():
    lowers(*_targets)(_unary(_name))


@lowers(aten.rsub.Scalar, aten.rsub.Tensor)
def _rsub(lowering: Lowering, _: Node, x: Laid, other: Any, alpha: float = 1) -> Laid:
    return lowering.binary("SUB", other, x if alpha == 1 else scaled(lowering, x, alpha))


@lowers(aten.addcmul.default)
def _addcmul(lowering: Lowering, _: Node, a: Any, b: Any, c: Any, *, value: float = 1) -> Laid:
    product = lowering.binary("MUL", b, c)
    return lowering.binary("ADD", a, product if value == 1 else scaled(lowering, product, value))


@lowers(aten.reciprocal.default)
def _reciprocal(lowering: Lowering, _: Node, x: Laid) -> Laid:
    return lowering.binary("DIV", 1.0, x)


@lowers(aten.square.default)
def _square(lowering: Lowering, _: Node, x: Laid) -> Laid:
    return lowering.binary("MUL", x, x)


@lowers(aten.log1p.default)
def _log1p(lowering: Lowering, _: Node, x: Laid) -> Laid:
    return unary(lowering, "LOG", lowering.binary("ADD", x, 1.0))


@lowers(aten.expm1.default)
def _expm1(lowering: Lowering, _: Node, x: Laid) -> Laid:
    return lowering.binary("SUB", unary(lowering, "EXP", x), 1.0)


@lowers(aten.pow.Tensor_Scalar)
def _pow(lowering: Lowering, _: Node, x: Laid, exponent: float) -> Laid:
    if exponent == 2:
        return lowering.binary("MUL", x, x)
    if exponent in (0.5, -0.5):
        return unary(lowering, "SQRT" if exponent > 0 else "RSQRT", x)
    if exponent == -1:
        return lowering.binary("DIV", 1.0, x)
    if exponent == int(exponent) and 1 <= exponent <= 8:
        # Products hold for negative numbers too, where POW does not.
        result = x
        for _step in range(int(exponent) - 1):
            result = lowering.binary("MUL", result, x)
        return result
    return lowering.binary("POW", x, exponent)


@lowers(aten.silu.default, aten.silu_.default)
def _silu(lowering: Lowering, _: Node, x: Laid) -> Laid:
    return Laid(lowering.writer.mul(x.value, lowering.writer.unary("LOGISTIC", x.value)), x.order)


@lowers(aten.softplus.default)
def _softplus(lowering: Lowering, _: Node, x: Laid, beta: float = 1.0, threshold: float = 20.0) -> Laid:
    """relu(x) + log(1 + exp(-|x|)), which is x beyond any threshold that matters."""
    if threshold < 15:
        raise Unsupported(f"softplus with threshold {threshold} has no TFLite lowering", hint="use the default")
    wide = scaled(lowering, x, beta) if beta != 1 else x
    decayed = unary(lowering, "EXP", unary(lowering, "NEG", unary(lowering, "ABS", wide)))
    tail = unary(lowering, "LOG", lowering.binary("ADD", decayed, 1.0))
    total = lowering.binary("ADD", unary(lowering, "RELU", wide), tail)
    return total if beta == 1 else scaled(lowering, total, 1 / beta)


@lowers(aten.hardsigmoid.default, aten.hardsigmoid_.default)
def _hardsigmoid(lowering: Lowering, _: Node, x: Laid) -> Laid:
    return lowering.binary("DIV", unary(lowering, "RELU6", lowering.binary("ADD", x, 3.0)), 6.0)


@lowers(aten.hardtanh.default, aten.hardtanh_.default, aten.clamp.default, aten.clamp_.default, aten.clamp.Tensor)
def _clamp(lowering: Lowering, node: Node, x: Laid, *limits: Any, **named: Any) -> Laid:
    """Between two limits; hardtanh has -1 and 1 unless told, clamp may leave one out."""
    clamp = node.target not in (aten.hardtanh.default, aten.hardtanh_.default)
    low: Any = None if clamp else -1.0
    high: Any = None if clamp else 1.0
    given = dict(zip(("min", "max"), limits, strict=False)) | named
    low, high = given.get("min", low), given.get("max", high)
    x = x if low is None else lowering.binary("MAXIMUM", x, low)
    return x if high is None else lowering.binary("MINIMUM", x, high)


@lowers(aten.leaky_relu.default, aten.leaky_relu_.default)
def _leaky_relu(lowering: Lowering, _: Node, x: Laid, slope: float = 0.01) -> Laid:
    shape = [*x.value.shape]
    return Laid(lowering.writer.operator("LEAKY_RELU", [x.value], shape, "LeakyReluOptions", alpha=slope), x.order)


@lowers(aten.prelu.default, aten._prelu_kernel.default)
def _prelu(lowering: Lowering, _: Node, x: Laid, slope: Tensor) -> Laid:
    """A slope for every channel (axis 1), or one for all."""
    if slope.numel() > 1 and slope.dim() == 1:
        slope = slope.reshape(-1, *[1] * (len(x.order) - 2))
    below = unary(lowering, "RELU", unary(lowering, "NEG", x))
    return lowering.binary("SUB", unary(lowering, "RELU", x), lowering.binary("MUL", below, slope))


@lowers(aten.gelu.default, aten.gelu_.default)
def _gelu(lowering: Lowering, _: Node, x: Laid, *, approximate: str = "none") -> Laid:
    if approximate == "none":
        return unary(lowering, "GELU", x)
    shape = [*x.value.shape]
    return Laid(lowering.writer.operator("GELU", [x.value], shape, "GeluOptions", approximate=True), x.order)


@lowers(aten._log_softmax.default)
def _log_softmax(lowering: Lowering, _: Node, x: Laid, axis: int, *__: Any) -> Laid:
    rank = len(x.order)
    last = axis % rank
    x = layout.arrange(lowering.writer, x, (*(i for i in range(rank) if i != last), last))
    return unary(lowering, "LOG_SOFTMAX", x)


@lowers(aten.cumsum.default)
def _cumsum(lowering: Lowering, _: Node, x: Laid, axis: int, **__: Any) -> Laid:
    at = lowering.writer.constant(np.array(x.stored(axis), np.int32))
    value = lowering.writer.operator(
        "CUMSUM", [x.value, at], [*x.value.shape], "CumsumOptions", exclusive=False, reverse=False
    )
    return Laid(value, x.order)


@lowers(aten.where.self)
def _where(lowering: Lowering, node: Node, condition: Laid | Tensor, a: Any, b: Any) -> Laid:
    """SELECT_V2 over tensors of one shape: not every runtime broadcasts it."""
    shape = lowering.shape(node)
    values = [whole(lowering, x if isinstance(x, Laid) else torch.as_tensor(x), shape) for x in (condition, a, b)]
    return layout.plain(lowering.writer.operator("SELECT_V2", values, shape, "SelectV2Options"))


def whole(lowering: Lowering, x: Laid | Tensor, shape: Sequence[int]) -> Any:
    """An argument in torch's order, broadcast to ``shape``."""
    if isinstance(x, Tensor):
        kept = x if x.dtype == torch.bool else x.float()
        return lowering.writer.constant(kept.expand(*shape).contiguous().numpy())
    aligned = layout.reshape(lowering.writer, x, (1,) * (len(shape) - len(x.order)) + x.shape)
    stored = layout.arrange(lowering.writer, aligned, range(len(shape))).value
    return lowering.writer.tile(stored, shape)


@lowers(aten.to.dtype, aten._to_copy.default, aten.to.dtype_layout, aten.to.device, aten.type_as.default)
def _to(lowering: Lowering, node: Node, x: Laid, *_: Any, **__: Any) -> Laid:
    """float16 and float64 of the network are float32 in the graph."""
    before, after = node.args[0].meta["val"].dtype, node.meta["val"].dtype  # type: ignore[union-attr]
    if before.is_floating_point == after.is_floating_point:
        return x
    if not after.is_floating_point:
        raise Unsupported(f"a tensor turned into {after} has no TFLite lowering", hint="compute with floats")
    value = lowering.writer.operator("CAST", [x.value], [*x.value.shape])
    return Laid(value, x.order)


def _reduction(name: str) -> Callable[..., Laid]:
    def lower(
        lowering: Lowering, _: Node, x: Laid, axes: Sequence[int] | int | None = None, keep: bool = False, **__: Any
    ) -> Laid:
        return reduce(lowering, name, x, axes, keep)

    return lower


lowers(aten.mean.dim, aten.mean.default)(_reduction("MEAN"))
lowers(aten.sum.dim_IntList, aten.sum.default)(_reduction("SUM"))
lowers(aten.amax.default)(_reduction("REDUCE_MAX"))
lowers(aten.amin.default)(_reduction("REDUCE_MIN"))


@lowers(aten.max.dim, aten.min.dim)
def _extreme(lowering: Lowering, node: Node, x: Laid, axis: int, keep: bool = False) -> list[Laid | None]:
    """The values; where they lie is not in the graph."""
    name = "REDUCE_MAX" if node.target is aten.max.dim else "REDUCE_MIN"
    return [reduce(lowering, name, x, axis, keep), None]


@lowers(aten.var.correction, aten.var_mean.correction)
def _var(
    lowering: Lowering, node: Node, x: Laid, axes: Any = None, *, correction: float | None = 1, keepdim: bool = False
) -> Laid | list[Laid]:
    axes = [axes] if isinstance(axes, int) else [*(axes or range(len(x.order)))]
    mean = reduce(lowering, "MEAN", x, axes, True)
    centred = lowering.binary("SUB", x, mean)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    total = reduce(lowering, "SUM", lowering.binary("MUL", centred, centred), axes, keepdim)
    variance = scaled(lowering, total, 1 / max(count - (1 if correction is None else correction), 1e-30))
    if node.target is aten.var.correction:
        return variance
    return [variance, mean if keepdim else reduce(lowering, "MEAN", x, axes)]


@lowers(aten.linalg_vector_norm.default)
def _norm(
    lowering: Lowering, _: Node, x: Laid, order: float = 2, axes: Any = None, keep: bool = False, **__: Any
) -> Laid:
    if order == 2:
        return unary(lowering, "SQRT", reduce(lowering, "SUM", lowering.binary("MUL", x, x), axes, keep))
    if order == 1:
        return reduce(lowering, "SUM", unary(lowering, "ABS", x), axes, keep)
    raise Unsupported(f"a norm of order {order} has no TFLite lowering", hint="use order 1 or 2")
