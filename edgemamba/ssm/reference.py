"""The selective scan as the paper writes it: one step after the other, in any float type.

In float64 this is the oracle of every other form.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    *,
    delta_softplus: bool = ...,
    return_last_state: Literal[False] = ...,
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    *,
    delta_softplus: bool = ...,
    return_last_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scan, sequential in time, differentiable, in the dtype of its inputs.

    ``h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t]`` and ``y[t] = sum_n C[t] h[t] + D u[t]``, then
    ``y * silu(z)``.

    Args:
        u: input, (batch, d_inner, length).
        delta: step sizes, shaped like ``u``; ``delta_bias`` is added first, then softplus if asked.
        A: (d_inner, d_state), negative.
        B: input map, (batch, d_state, length).
        C: output map, (batch, d_state, length).
        D: skip, (d_inner).
        z: gate, shaped like ``u``.
        delta_bias: (d_inner).
        delta_softplus: whether ``delta`` still has to pass softplus.
        return_last_state: also return the state after the last step, (batch, d_inner, d_state).

    Returns:
        y, shaped like ``u``, and the last state if asked.

    Source: Gu and Dao, "Mamba", algorithm 2; argument meaning of ``selective_scan_fn`` in state-spaces/mamba.
    """
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    state = u.new_zeros(u.shape[0], *A.shape)
    steps = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        state = torch.exp(step * A) * state + step * u[:, :, t, None] * B[:, None, :, t]
        steps.append((state * C[:, None, :, t]).sum(-1))
    y = torch.stack(steps, dim=-1)
    if D is not None:
        y = y + D[:, None] * u
    if z is not None:
        y = y * F.silu(z)
    return (y, state) if return_last_state else y
