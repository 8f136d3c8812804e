"""``mamba_ssm.ops.triton.ssd_combined``: Mamba-2's scan, and all of its block in one call."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemamba.compat.conv import causal_conv1d_fn
from edgemamba.compat.norms import gated_rms_norm
from edgemamba.errors import Unsupported
from edgemamba.ssm.ssd import ssd

_NO_LIMIT = (0.0, math.inf)


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Any = None,
    cu_seqlens: Any = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = _NO_LIMIT,
    return_final_states: bool = False,
    return_varlen_states: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan with one rate a head.

    Args:
        x: (b, l, h, p).
        dt: (b, l, h), before ``dt_bias`` (h), the softplus and the limits.
        A: (h), negative.
        B: (b, l, g, n); C likewise.
        chunk_size: of the original's kernels; the result does not depend on it.
        D: (h) or (h, p), times x on top.
        z: gate (b, l, h, p), its SiLU times the result.
        initial_states: (b, h, p, n).

    Returns:
        Shaped and typed like ``x``; with ``return_final_states`` also the last state (b, h, p, n).

    Raises:
        Unsupported: packed sequences, which belong to language models.

    Source: argument meaning of state-spaces/mamba, ops/triton/ssd_combined.py.
    """
    del chunk_size
    if seq_idx is not None or cu_seqlens is not None or return_varlen_states:
        raise Unsupported(
            "mamba_chunk_scan_combined with packed sequences is not available", hint="give whole sequences, one a row"
        )
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    step = dt.to(wide) if dt_bias is None else dt.to(wide) + dt_bias.to(wide)
    step = F.softplus(step) if dt_softplus else step
    if tuple(dt_limit) != _NO_LIMIT:
        step = step.clamp(*dt_limit)
    inputs = x.to(wide)
    start = None if initial_states is None else initial_states.to(wide)
    y, last = ssd(inputs, step, A.to(wide), B.to(wide), C.to(wide), start)
    if D is not None:
        y = y + inputs * D.to(wide).reshape(len(D), -1)
    if z is not None:
        y = y * F.silu(z.to(wide))
    return (y.to(x.dtype), last) if return_final_states else y.to(x.dtype)


def mamba_split_conv1d_scan_combined(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    initial_states: Tensor | None = None,
    seq_idx: Any = None,
    dt_limit: tuple[float, float] = _NO_LIMIT,
    return_final_states: bool = False,
    activation: str | None = "silu",
    rmsnorm_weight: Tensor | None = None,
    rmsnorm_eps: float = 1e-6,
    outproj_weight: Tensor | None = None,
    outproj_bias: Tensor | None = None,
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    """Mamba-2's block between its projections: convolution, scan, gated norm, and the last projection where given.

    Args:
        zxbcdt: (b, l, 2 m + 2 h p + 2 g n + h): gate and value of m channels without a scan, gate z, then x, B and C,
            which the convolution sees, and dt.
        conv1d_weight: (h p + 2 g n, taps).
        D: (h, p), or (h) with ``headdim`` p.
        rmsnorm_weight: (h p); without it z gates the scan's result.

    Returns:
        (b, l, m + h p), or what ``outproj_weight`` makes of it; with ``return_final_states`` also the last state.

    Raises:
        Unsupported: packed sequences.

    Source: argument meaning of state-spaces/mamba, ops/triton/ssd_combined.py.
    """
    heads = len(D)
    channels = int(D.shape[1]) if D.dim() == 2 else headdim
    assert channels is not None, "D of one axis needs headdim"
    inner, convolved = heads * channels, int(conv1d_weight.shape[0])
    plain = (zxbcdt.shape[-1] - inner - convolved - heads) // 2
    z0, x0, z, xbc, dt = zxbcdt.split([plain, plain, inner, convolved, heads], -1)
    xbc = causal_conv1d_fn(xbc.transpose(1, 2), conv1d_weight, conv1d_bias, activation=activation).transpose(1, 2)
    shared = (convolved - inner) // 2
    x, B, C = xbc.split([inner, shared, shared], -1)
    scanned = mamba_chunk_scan_combined(
        x.unflatten(-1, (heads, channels)),
        dt,
        A,
        B.unflatten(-1, (ngroups, -1)),
        C.unflatten(-1, (ngroups, -1)),
        chunk_size,
        D=D,
        z=None if rmsnorm_weight is not None else z.unflatten(-1, (heads, channels)),
        dt_bias=dt_bias,
        initial_states=initial_states,
        seq_idx=seq_idx,
        dt_softplus=True,
        dt_limit=dt_limit,
        return_final_states=True,
    )
    out, last = scanned[0].flatten(-2), scanned[1]
    if rmsnorm_weight is not None:
        out = gated_rms_norm(out, rmsnorm_weight, None, z, rmsnorm_eps, inner // ngroups, norm_before_gate)
    if plain:
        out = torch.cat([F.silu(z0) * x0, out], -1)
    if outproj_weight is not None:
        out = F.linear(out.to(outproj_weight.dtype), outproj_weight, outproj_bias)
    return (out, last) if return_final_states else out
