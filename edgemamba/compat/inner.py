"""``mamba_inner_fn`` and its kin: a Mamba block between its two projections, as functions of its weights.

xz (b, 2D, L) holds input and gate; the weights are those of ``conv1d``, ``x_proj``, ``dt_proj`` and ``out_proj``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemamba.compat.conv import causal_conv1d_fn
from edgemamba.compat.scan import selective_scan_fn


def mamba_inner_fn_no_out_proj(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """Convolution, SiLU, scan and gate: (b, D, L). B or C of None come from ``x_proj``.

    Source: argument meaning of hustvl/Vim, selective_scan_interface.py.
    """
    x, z = xz.chunk(2, dim=1)
    x = _convolved(x, conv1d_weight, conv1d_bias)
    delta, B, C = _maps(x, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias)
    y = selective_scan_fn(x, delta, A, B, C, D, z, delta_bias, delta_softplus)
    assert isinstance(y, Tensor)
    return y


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
) -> Tensor:
    """``mamba_inner_fn_no_out_proj`` and the output projection: (b, L, d_model).

    ``checkpoint_lvl`` tunes the memory of the original's backward pass only.

    Source: argument meaning of state-spaces/mamba, selective_scan_interface.py.
    """
    del checkpoint_lvl
    y = mamba_inner_fn_no_out_proj(
        xz,
        conv1d_weight,
        conv1d_bias,
        x_proj_weight,
        delta_proj_weight,
        A,
        B,
        C,
        D,
        delta_bias,
        B_proj_bias,
        C_proj_bias,
        delta_softplus,
    )
    return _out(y, out_proj_weight, out_proj_bias)


def bimamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    A_b: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """Vim's first bidirectional block: one convolution and projection, scanned forwards with A, backwards with A_b.

    Source: argument meaning of hustvl/Vim, selective_scan_interface.py.
    """
    x, z = xz.chunk(2, dim=1)
    x = _convolved(x, conv1d_weight, conv1d_bias)
    delta, B, C = _maps(x, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias)
    forward = selective_scan_fn(x, delta, A, B, C, D, z, delta_bias, delta_softplus)
    x, delta, B, C, z = (tensor.flip(-1) if tensor.dim() > 2 else tensor for tensor in (x, delta, B, C, z))
    back = selective_scan_fn(x, delta, A_b, B, C, D, z, delta_bias, delta_softplus)
    assert isinstance(forward, Tensor) and isinstance(back, Tensor)
    return _out(forward + back.flip(-1), out_proj_weight, out_proj_bias)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    kernel = weight.squeeze(1) if weight.dim() == 3 else weight
    return causal_conv1d_fn(x, kernel, bias, activation="silu")


def _maps(
    x: Tensor,
    x_proj: Tensor,
    dt_proj: Tensor,
    A: Tensor,
    B: Tensor | None,
    C: Tensor | None,
    B_bias: Tensor | None,
    C_bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """delta (b, D, L), B and C (b, N, L) where they are not given, from the convolved x (b, D, L)."""
    rank, d_state = int(dt_proj.shape[1]), int(A.shape[1])
    sizes = [rank, *[d_state for given in (B, C) if given is None]]
    parts = list(torch.matmul(x_proj, x).split(sizes, 1))
    delta = torch.matmul(dt_proj, parts.pop(0))
    found = []
    for given, bias in ((B, B_bias), (C, C_bias)):
        tensor = parts.pop(0) if given is None else given
        found.append(tensor if given is not None or bias is None else tensor + bias.to(tensor.dtype)[:, None])
    return delta, found[0], found[1]


def _out(y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(y.transpose(1, 2), weight, bias)


mamba_inner_ref = mamba_inner_fn
bimamba_inner_ref = bimamba_inner_fn
