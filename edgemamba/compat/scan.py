"""``selective_scan_fn`` of mamba_ssm and of VMamba's selective_scan package: their arguments, this package's scan."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemamba.errors import Unsupported
from edgemamba.ssm.export_forms import softplus
from edgemamba.ssm.forms import EXPORT_FORMS, active_form
from edgemamba.ssm.grouped import grouped_scan, last_state, states


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scan as ``mamba_ssm.ops.selective_scan_interface`` has it.

    Args:
        u: (b, D, L), any float type.
        delta: shaped like ``u``; ``delta_bias`` (D) is added, then softplus taken if asked.
        A: (D, N), real.
        B: (D, N) for all steps, (b, N, L), or (b, R, N, L) with R groups of channels.
        C: as ``B``.
        D: skip, (D); z: gate, shaped like ``u``.
        return_last_state: return the state after the last step too, (b, D, N) float32.

    Returns:
        y, shaped and typed like ``u``; computed in float32 (float64 for float64 inputs).

    Raises:
        Unsupported: complex A, B or C.
        ValueError: shapes that do not fit.

    Source: argument meaning of state-spaces/mamba, selective_scan_interface.py.
    """
    kind = torch.float64 if u.dtype == torch.float64 else torch.float32
    with torch.autocast(u.device.type, enabled=False):
        y, state = _scan(u.to(kind), delta.to(kind), A, B, C, delta_bias, delta_softplus, return_last_state)
        if D is not None:
            y = y + D.to(kind)[:, None] * u.to(kind)
        if z is not None:
            y = y * F.silu(z.to(kind))
        y = y.to(u.dtype)
    return (y, state) if state is not None else y


def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    want_state: bool,
) -> tuple[Tensor, Tensor | None]:
    """y without skip and gate, and the last state if asked."""
    _check(u, delta, A, B, C)
    A, B, C = (tensor.to(u.dtype) for tensor in (A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.to(u.dtype)[:, None]
    if delta_softplus:
        # torch's softplus becomes three operators in a graph, and not every runtime has it.
        delta = softplus(delta) if active_form() in EXPORT_FORMS else F.softplus(delta)
    if B.dim() == 2 or C.dim() == 2:
        return _for_channels(u, delta, A, B, C, want_state)
    B, C = (tensor.unsqueeze(1) if tensor.dim() == 3 else tensor for tensor in (B, C))
    sets = max(int(B.shape[1]), int(C.shape[1]))
    B, C = (tensor.expand(-1, sets, -1, -1) for tensor in (B, C))
    if want_state:
        return last_state(u, delta, A, B, C)
    return grouped_scan(u, delta, A, B, C), None


def _for_channels(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, want_state: bool
) -> tuple[Tensor, Tensor | None]:
    """B or C holds for a channel at all steps, (D, N): every state is scanned by itself, C applied after it."""
    maps_in, maps_out = (_of_state(tensor, u) for tensor in (B, C))
    found = states(torch.stack([row * u for row in maps_in], 1), delta, A)
    y = maps_out[0] * found[:, 0]
    for n in range(1, len(maps_out)):
        y = y + maps_out[n] * found[:, n]
    return y, found[..., -1].transpose(1, 2) if want_state else None


def _of_state(tensor: Tensor, u: Tensor) -> list[Tensor]:
    """Factor of every state, broadcast against (b, D, L)."""
    if tensor.dim() == 2:
        return [column[:, None] for column in tensor.unbind(1)]
    if tensor.dim() == 3:
        return [row[:, None] for row in tensor.unbind(1)]
    width = int(u.shape[1]) // int(tensor.shape[1])
    return [row.repeat_interleave(width, 1) for row in tensor.unbind(2)]


def _check(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
    if A.is_complex() or B.is_complex() or C.is_complex():
        raise Unsupported(
            "a selective scan with complex A, B or C (S4D-Lin) is not available",
            hint="use a real A, as Mamba and the vision networks do",
        )
    if u.dim() != 3 or delta.shape != u.shape or A.dim() != 2 or A.shape[0] != u.shape[1]:
        raise ValueError(
            f"selective_scan_fn takes u and delta (batch, D, L) and A (D, N), not {tuple(u.shape)}, "
            f"{tuple(delta.shape)} and {tuple(A.shape)}"
        )
    batch, channels, length = u.shape
    for name, tensor in (("B", B), ("C", C)):
        sets = int(tensor.shape[1]) if tensor.dim() == 4 else 1
        fits = {
            2: tensor.shape == A.shape,
            3: tensor.shape == (batch, A.shape[1], length),
            4: tensor.shape == (batch, sets, A.shape[1], length) and channels % sets == 0,
        }
        if not fits.get(tensor.dim(), False):
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}: (D, N), (batch, N, L) or (batch, groups, N, L) is taken, "
                f"for batch {batch}, D {channels}, N {A.shape[1]}, L {length}"
            )


def selective_scan_ref(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """``selective_scan_fn``: the reference of mamba_ssm computes the same, one step after the other."""
    return selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


def selective_scan_without_gate(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    nrows: int = 1,
    backnrows: int = -1,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """``selective_scan_fn`` of VMamba's package ``selective_scan``; ``nrows`` and ``backnrows`` tune its kernel only.

    Source: argument meaning of MzeroMiko/VMamba, selective_scan_interface.py.
    """
    del nrows, backnrows
    return selective_scan_fn(u, delta, A, B, C, D, None, delta_bias, delta_softplus, return_last_state)
