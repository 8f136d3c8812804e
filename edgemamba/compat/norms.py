"""``mamba_ssm.ops.triton.layer_norm``: the residual sum and the normalisation after it, as functions and a module."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.errors import Unsupported


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Any = None,
    weight1: Any = None,
    bias1: Any = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Any = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Normalise ``x + residual`` over the last axis.

    Args:
        prenorm: return the sum too, which the next block adds to.
        residual_in_fp32: keep a sum that starts here in float32.
        is_rms_norm: divide by the root mean square, no mean taken off.

    Returns:
        Shaped and typed like ``x``; with ``prenorm`` also the sum.

    Raises:
        Unsupported: parallel branches, dropout or a row scale inside the kernel.

    Source: argument meaning of state-spaces/mamba, ops/triton/layer_norm.py.
    """
    if any(option is not None for option in (x1, weight1, bias1, rowscale)) or dropout_p or return_dropout_mask:
        raise Unsupported(
            "layer_norm_fn with a second branch, dropout or a row scale is not available",
            hint="apply them outside the function",
        )
    kind = x.dtype
    wide = torch.float64 if kind == torch.float64 else torch.float32
    total = x.to(wide) if residual is None else x.to(wide) + residual.to(wide)
    scale = weight.to(wide)
    shift = None if bias is None else bias.to(wide)
    if is_rms_norm:
        y = total * torch.rsqrt((total * total).mean(-1, keepdim=True) + eps) * scale
        y = y if shift is None else y + shift
    else:
        y = F.layer_norm(total, (total.shape[-1],), scale, shift, eps)
    kept = residual.dtype if residual is not None else (torch.float32 if residual_in_fp32 else kind)
    return (y.to(kind), total.to(kept)) if prenorm else y.to(kind)


def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Any = None,
    weight1: Any = None,
    bias1: Any = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Any = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    return_dropout_mask: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """``layer_norm_fn`` with ``is_rms_norm``."""
    options = (eps, dropout_p, rowscale, prenorm, residual_in_fp32, True, return_dropout_mask)
    return layer_norm_fn(x, weight, bias, residual, x1, weight1, bias1, *options)


def layer_norm_ref(
    x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any, upcast: bool = True, **options: Any
) -> Any:
    """``layer_norm_fn``, which always computes in float32."""
    del upcast
    return layer_norm_fn(x, weight, bias, *rest, **options)


def rms_norm_ref(
    x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any, upcast: bool = True, **options: Any
) -> Any:
    """``rms_norm_fn``, which always computes in float32."""
    del upcast
    return rms_norm_fn(x, weight, bias, *rest, **options)


class RMSNorm(nn.Module):
    """``x / rms(x) * weight`` over the last axis; parameter ``weight``."""

    bias: Tensor | None

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        dropout_p: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.drop = nn.Dropout(dropout_p) if dropout_p > 0.0 else None
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias", None)

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Tokens (..., hidden_size) -> same shape; with ``prenorm`` also ``x + residual``."""
        x = x if self.drop is None else self.drop(x)
        return rms_norm_fn(
            x, self.weight, None, residual, eps=self.eps, prenorm=prenorm, residual_in_fp32=residual_in_fp32
        )


class GatedRMSNorm(nn.Module):
    """``mamba_ssm.ops.triton.layernorm_gated.RMSNorm``: RMS over groups of the last axis, gated by ``silu(z)``."""

    bias: Tensor | None

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.group_size, self.norm_before_gate = eps, group_size or hidden_size, norm_before_gate
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias", None)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """Tokens and gate (..., hidden_size) -> same shape."""
        return gated_rms_norm(x, self.weight, self.bias, z, self.eps, self.group_size, self.norm_before_gate)


def gated_rms_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    """``mamba_ssm.ops.triton.layernorm_gated.rmsnorm_fn``: x and gate z (..., c) -> same shape, RMS over groups."""
    wide = x.float() if x.dtype != torch.float64 else x
    if z is not None and not norm_before_gate:
        wide = wide * F.silu(z.to(wide.dtype))
    groups = wide.unflatten(-1, (-1, group_size or x.shape[-1]))
    y = groups * torch.rsqrt((groups * groups).mean(-1, keepdim=True) + eps)
    y = y.flatten(-2) * weight
    y = y if bias is None else y + bias
    if z is not None and norm_before_gate:
        y = y * F.silu(z.to(wide.dtype))
    return y.to(x.dtype)
