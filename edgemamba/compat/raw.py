"""The compiled modules under mamba_ssm, causal_conv1d and VMamba's kernels, by their forward and backward functions.

Model files that carry a copy of the interface call these: ``selective_scan_cuda``, ``selective_scan_cuda_core``,
``selective_scan_cuda_oflex``, ``selective_scan_cuda_nrow``, ``selective_scan_cuda_ndstate`` and
``causal_conv1d_cuda``. Forward is this package's scan; backward computes it again and asks autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgemamba.compat.conv import causal_conv1d_fn
from edgemamba.compat.scan import selective_scan_fn
from edgemamba.ssm.forms import EXPORT_FORMS, active_form


def mamba_fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> list[Tensor]:
    """``selective_scan_cuda.fwd``: y before the gate, the chunk states, and y after the gate where z is given."""
    out, x = _forward(u, delta, A, B, C, D, delta_bias, delta_softplus)
    return [out, x] if z is None else [out, x, out * torch.nn.functional.silu(z)]


def mamba_bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    dout: Tensor,
    *rest: Any,
) -> list[Any]:
    """``selective_scan_cuda.bwd``: gradients of u, delta, A, B, C, D and delta_bias; of z, and y again, where z is.

    ``rest``: x, out, dz, delta_softplus, recompute_out_z; dz is filled in where it is given.
    """
    _, out, dz, delta_softplus, *more = rest
    gradients, gate, y = _backward(u, delta, A, B, C, D, z, delta_bias, dout, bool(delta_softplus))
    if z is None or gate is None:
        return gradients
    if dz is not None:
        dz.copy_(gate)
        gate = dz
    del out
    return [*gradients, gate, *([y] if more and more[0] else [])]


def grouped_fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    nrows: int = 1,
    oflex: bool = False,
) -> list[Tensor]:
    """``selective_scan_cuda_core.fwd`` and its kin, which have no gate; ``oflex``: y in float32 whatever u is."""
    del nrows
    out, x = _forward(u, delta, A, B, C, D, delta_bias, delta_softplus, wide=oflex)
    return [out, x]


def grouped_bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    dout: Tensor,
    *rest: Any,
) -> list[Any]:
    """``selective_scan_cuda_core.bwd``: gradients of u, delta, A, B, C, D and delta_bias.

    ``rest``: x, in early releases out, delta_softplus, then numbers that tune the kernel.
    """
    softplus = next((entry for entry in rest if isinstance(entry, bool)), False)
    return _backward(u, delta, A, B, C, D, None, delta_bias, dout, softplus)[0]


def conv_fwd(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    """``causal_conv1d_cuda.causal_conv1d_fwd`` of every release: the last argument says whether SiLU follows."""
    y = causal_conv1d_fn(x, weight, bias, activation="silu" if rest and rest[-1] else None)
    for out in (entry for entry in rest if isinstance(entry, Tensor) and entry.shape == y.shape):
        return out.copy_(y)
    return y


def conv_bwd(x: Tensor, weight: Tensor, bias: Tensor | None, dout: Tensor, *rest: Any) -> list[Any]:
    """``causal_conv1d_cuda.causal_conv1d_bwd``: gradients of x, weight and bias; dx is filled in where it is given."""
    known = [None if tensor is None else tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
    with torch.enable_grad():
        y = causal_conv1d_fn(known[0], known[1], known[2], activation="silu" if rest and rest[-1] else None)  # type: ignore[arg-type]
    found = _gradients(y, known, dout)
    for dx in (entry for entry in rest if isinstance(entry, Tensor) and entry.shape == x.shape):
        found[0] = dx.copy_(found[0])
    return [*found, None]


def _forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    *,
    wide: bool = False,
) -> tuple[Tensor, Tensor]:
    """y, and x (b, D, 1, 2N): decay over all steps and last state, in turn, as the kernels store them by chunk."""
    given = u.float() if wide and u.dtype != torch.float64 else u
    y, state = selective_scan_fn(given, delta, A, B, C, D, None, delta_bias, delta_softplus, return_last_state=True)
    if active_form() in EXPORT_FORMS:
        # A scan of its own, which a graph drops where nothing reads x.
        found = selective_scan_fn(given, delta, A, B, C, D, None, delta_bias, delta_softplus)
        assert isinstance(found, Tensor)
        y = found
    step = delta.to(state.dtype)
    if delta_bias is not None:
        step = step + delta_bias.to(state.dtype)[:, None]
    if delta_softplus:
        step = torch.nn.functional.softplus(step)
    decay = torch.exp(step.sum(-1, keepdim=True) * A.to(state.dtype))
    return y, torch.stack([decay, state], -1).flatten(2)[:, :, None]


def _backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    dout: Tensor,
    delta_softplus: bool,
) -> tuple[list[Any], Any, Tensor]:
    given = (u, delta, A, B, C, D, z, delta_bias)
    known = [None if tensor is None else tensor.detach().requires_grad_() for tensor in given]
    with torch.enable_grad():
        arguments: Any = (*known, delta_softplus)
        y = selective_scan_fn(*arguments)
    assert isinstance(y, Tensor)
    found = _gradients(y, known, dout)
    return [*found[:6], found[7]], found[6], y.detach()


def _gradients(y: Tensor, known: list[Tensor | None], dout: Tensor) -> list[Any]:
    wanted = [tensor for tensor in known if tensor is not None]
    found = iter(torch.autograd.grad(y, wanted, dout.to(y.dtype)))
    return [None if tensor is None else next(found) for tensor in known]
