"""The selective scan over (batch, channels, length), channels in groups with a B and C each, in the active form.

This is the shape in which networks of other projects call it: VMamba's four scan directions, for one, are four groups
of channels. Shapes: b sequences, D channels in R groups, N states, L steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemamba.ssm import export_forms, scan_op
from edgemamba.ssm.forms import EXPORT_FORMS, active_form
from edgemamba.ssm.reference import selective_scan
from edgemamba.ssm.two_pass import chunk_length, from_scan_order, to_scan_order, two_pass_scan


def grouped_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """``h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t]``, ``y[t] = sum_n C[t] h[t]``, in the form of ``active_form``.

    Args:
        u: input, (b, D, L), float32 or float64 as the rest.
        dt: step sizes after bias and softplus, shaped like ``u``.
        A: (D, N).
        B: input map, (b, R, N, L); channel d has group d // (D / R).
        C: output map, (b, R, N, L).

    Returns:
        y, shaped like ``u``; differentiable in the forms "train" and "reference".
    """
    form = active_form()
    if form == "off":
        return torch.zeros_like(u)
    if form in EXPORT_FORMS:
        return _exported(u, dt, A, B, C)
    one = _train if form == "train" else selective_scan
    sets = int(B.shape[1])
    parts = zip(u.chunk(sets, 1), dt.chunk(sets, 1), A.chunk(sets), B.unbind(1), C.unbind(1), strict=True)
    return torch.cat([one(*part) for part in parts], 1)


def _train(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """One group: B, C (b, N, L)."""
    length = u.shape[2]
    chunk = chunk_length(length, u.device)
    x, steps, inputs, outputs = (to_scan_order(tensor, chunk) for tensor in (u, dt, B, C))
    return from_scan_order(two_pass_scan(x, steps, A, inputs, outputs, A.new_zeros(A.shape[0])), length)


def _exported(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    batch, channels, length = (int(n) for n in u.shape)
    sets, d_state = int(B.shape[1]), int(A.shape[1])
    width = channels // sets
    form = export_forms.choose_form(length, channels, d_state, batch)
    # As one operator each where they are unrolled later, see scan_op.
    recurrences = scan_op if active_form() == "litert" else export_forms
    added = dt * u
    if form.algorithm == "sequential":
        rows = batch * sets
        steps, inputs = (x.reshape(rows, width, length).permute(2, 0, 1).unsqueeze(2) for x in (dt, added))
        maps = [x.reshape(rows, d_state, length).permute(2, 0, 1).unsqueeze(3) for x in (B, C)]
        rates = A.reshape(sets, width, d_state).transpose(1, 2)[None]
        if sets > 1 and batch > 1:
            rates = rates.repeat(1, batch, 1, 1)
        y = recurrences.sequential(steps, inputs, rates, *maps)
        return y.squeeze(2).permute(1, 2, 0).reshape(batch, channels, length)
    chunk = form.chunk
    ordered = [to_scan_order(x, chunk).flatten(2) for x in (dt, added)]
    maps = [to_scan_order(x.reshape(batch, -1, length), chunk).flatten(2) for x in (B, C)]
    positions = ordered[0].shape[2]
    if sets == 1:
        steps, inputs = (x.reshape(channels, 1, chunk, positions) for x in ordered)
        B, C = (x.reshape(1, d_state, chunk, positions) for x in maps)
        y = recurrences.two_pass(steps, inputs, A.reshape(channels, d_state, 1, 1), B, C, batch)
    else:
        steps, inputs = (x.reshape(sets, width, chunk, positions) for x in ordered)
        B, C = (x.reshape(sets, d_state, chunk, positions).transpose(1, 2) for x in maps)
        y = recurrences.two_pass(steps, inputs, A.reshape(sets, width, d_state, 1), B, C, batch, 2)
    return from_scan_order(y.reshape(channels, chunk, -1, batch), length)


def last_state(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """``grouped_scan`` and the state after the last step, (b, D, N), from one scan.

    N steps without decay and input follow, each of which shows one number of the state.
    """
    batch, sets, d_state, length = B.shape
    show = torch.eye(d_state, dtype=C.dtype, device=C.device).expand(batch, sets, d_state, d_state)
    u, dt, B = (F.pad(x, (0, d_state)) for x in (u, dt, B))
    y = grouped_scan(u, dt, A, B, torch.cat([C, show], 3))
    return y[..., :length], y[..., length:]


def states(u: Tensor, dt: Tensor, A: Tensor) -> Tensor:
    """Every state of the scan as a channel with one state: (b, N, D, L).

    Args:
        u: what comes into each state, B taken in: (b, N, D, L).
        dt: (b, D, L).
        A: (D, N).
    """
    batch, d_state, channels, length = u.shape
    ones = u.new_ones(batch, 1, 1, length)
    y = grouped_scan(u.flatten(1, 2), dt.repeat(1, d_state, 1), A.t().reshape(-1, 1), ones, ones)
    return y.reshape(batch, d_state, channels, length)
