"""The Mamba core as plain tensor operations that export well: static shapes, no control flow, no index.

Tokens come in *scan order* (Q, K, groups, d_model), see ``two_pass``. Two algorithms:

* two-pass over chunks, channels first, state (d_inner, d_state, 1, K * groups): small states, long sequences;
* sequential, time first, state (groups, d_state, d_inner): wide states, which chunks push out of the cache.

Everything is at most 4-D, splits instead of indexing, softplus written as relu(x) + log(1 + exp(-|x|)), no einsum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from edgemamba.ssm.two_pass import with_history

# From this many state elements per step on, and this many per step of the sequence (each step is seven operators),
# chunking only adds passes and leaves the L2 cache.
WIDE_STATE = 6000
WIDE_STATE_PER_STEP = 48
# Below this many chunks of all sequences together, the innermost axis of a chunked state, a step is too little work.
NARROW_STATE = 16
# Up to this many state elements in all, decays and inputs of all steps fit the L2 cache and are made at once.
HOISTED_STATE = 140_000
# Steps whose states are contracted together by the sequential algorithm, while they are still in the cache.
CONTRACTED_STEPS = 8


@dataclasses.dataclass(frozen=True)
class ExportForm:
    """What ``choose_form`` chose: ``chunk`` is Q; the sequential algorithm has one chunk of the whole length."""

    algorithm: Literal["two-pass", "sequential"]
    chunk: int


def export_chunk(length: int) -> int:
    """Steps per chunk: half the square root of ``length``, at least 8. The optimum is flat, small graphs are better."""
    chunk = min(8, length)
    while 4 * (2 * chunk) ** 2 <= length:
        chunk *= 2
    return chunk


def choose_form(length: int, d_inner: int, d_state: int, groups: int) -> ExportForm:
    """The faster algorithm for one call of this size."""
    chunk = export_chunk(length)
    wide = groups * d_inner * d_state >= max(WIDE_STATE, WIDE_STATE_PER_STEP * length)
    if wide or -(-length // chunk) * groups < NARROW_STATE or length <= 2:
        return ExportForm("sequential", length)
    return ExportForm("two-pass", chunk)


@dataclasses.dataclass(frozen=True)
class StateSpace:
    """Weights of one selective state space; ``A = -exp(A_log)`` is already a constant."""

    A: Tensor
    D: Tensor
    x_proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor


@dataclasses.dataclass(frozen=True)
class Weights(StateSpace):
    """Weights of one Mamba block."""

    in_proj: Tensor
    conv: Tensor
    conv_bias: Tensor
    out_proj: Tensor


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) for every x, from operations that every runtime has fast."""
    return torch.relu(x) + torch.log(1 + torch.exp(-torch.abs(x)))


def two_pass_core(tokens: Tensor, w: Weights, recurrence: Callable[..., Tensor]) -> Tensor:
    """Mamba block over tokens (Q, K, groups, d_model) in scan order, chunked; ``recurrence``: a ``two_pass``."""
    chunk, chunks, groups, d_model = (int(n) for n in tokens.shape)
    d_inner = int(w.A.shape[0])
    positions = chunks * groups
    flat = tokens.reshape(chunk * positions, d_model)
    x, z = torch.matmul(w.in_proj, flat.t()).split(d_inner, 0)
    x = _silu(_causal_conv(x.reshape(d_inner, chunk, positions), w, groups))
    # x and z first: a runtime that holds them tokens first then turns y once, and nothing else.
    y = _silu(z) * two_pass_ssm(x, w, (chunk, positions, groups), recurrence)
    return torch.matmul(y.t(), w.out_proj.t()).reshape(chunk, chunks, groups, d_model)


def two_pass_ssm(x: Tensor, w: StateSpace, sizes: tuple[int, int, int], recurrence: Callable[..., Tensor]) -> Tensor:
    """State space over x (d_inner, Q * K * groups) in scan order -> same shape; ``sizes`` is Q, K * groups, groups."""
    d_inner, d_state = int(w.A.shape[0]), int(w.A.shape[1])
    chunk, positions, groups = sizes
    rank = int(w.dt_proj.shape[1])
    r, B, C = torch.matmul(w.x_proj, x).split([rank, d_state, d_state], 0)
    dt = softplus((w.dt_proj * r if rank == 1 else torch.matmul(w.dt_proj, r)) + w.dt_bias[:, None])
    y = recurrence(
        dt.reshape(d_inner, 1, chunk, positions),
        (dt * x).reshape(d_inner, 1, chunk, positions),
        w.A.reshape(d_inner, d_state, 1, 1),
        B.reshape(1, d_state, chunk, positions),
        C.reshape(1, d_state, chunk, positions),
        groups,
    )
    return w.D[:, None] * x + y.reshape(d_inner, chunk * positions)


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _causal_conv(x: Tensor, w: Weights, groups: int) -> Tensor:
    """Depthwise causal convolution over time of x (d_inner, Q, K*groups)."""
    d_inner, chunk, positions = (int(n) for n in x.shape)
    taps = int(w.conv.shape[1])
    padded = with_history(x, taps - 1, groups).reshape(1, d_inner, chunk + taps - 1, positions)
    kernel = w.conv.reshape(d_inner, 1, taps, 1)
    return torch.conv2d(padded, kernel, w.conv_bias, groups=d_inner).reshape(d_inner, chunk * positions)


def two_pass(
    dt: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, groups: int, state_axis: Literal[1, 2] = 1
) -> Tensor:
    """Recurrence over chunks side by side; ``groups`` sequences that share A, P = K * groups.

    ``state_axis`` 1: dt, u (D, 1, Q, P), A (D, N, 1, 1), B, C (1, N, Q, P) -> (D, 1, Q, P). ``state_axis`` 2, for R
    sets of channels with a B and C each: dt, u (R, D, Q, P), A (R, D, N, 1), B, C (R, Q, N, P) -> (R, D, Q, P).
    """
    chunk = int(dt.shape[2])
    B_steps, C_steps = B.split(1, 3 - state_axis), C.split(1, 3 - state_axis)
    if state_axis == 1 and dt.numel() * int(A.shape[1]) <= HOISTED_STATE:
        decays, adds = torch.exp(dt * A).split(1, 2), (u * B).split(1, 2)
    else:
        decays = [torch.exp(step * A) for step in dt.split(1, 2)]
        adds = [a * b for a, b in zip(u.split(1, 2), B_steps, strict=True)]
    state = adds[0]
    for q in range(1, chunk):
        state = decays[q] * state + adds[q]
    state = _carry(state, torch.exp(dt.sum(2, keepdim=True) * A), groups)
    outputs = []
    for decay, add, C_step in zip(decays, adds, C_steps, strict=True):
        state = decay * state + add
        outputs.append((C_step * state).sum(state_axis, keepdim=True))
    return torch.cat(outputs, 2)


def _carry(end: Tensor, decay: Tensor, groups: int) -> Tensor:
    """True start state of every chunk from the end states of chunks started at zero, by doubling on the last axis."""
    positions = int(end.shape[3])
    shift = groups
    while shift < positions - groups:
        end = decay * _shift(end, shift) + end
        if 2 * shift < positions - groups:
            decay = decay * _shift(decay, shift)
        shift *= 2
    return _shift(end, groups)


def _shift(x: Tensor, count: int) -> Tensor:
    """Move along the last axis by ``count``, zeros in front; one Pad node."""
    return torch.nn.functional.pad(x, (count, -count))


def sequential_core(tokens: Tensor, w: Weights, recurrence: Callable[..., Tensor]) -> Tensor:
    """Mamba block over tokens (length, 1, groups, d_model), time first; ``recurrence``: a ``sequential``."""
    length, _, groups, d_model = (int(n) for n in tokens.shape)
    d_inner = int(w.A.shape[0])
    rows = length * groups
    x, z = torch.matmul(tokens.reshape(rows, d_model), w.in_proj.t()).split(d_inner, 1)
    taps = int(w.conv.shape[1])
    padded = torch.nn.functional.pad(x, (0, 0, (taps - 1) * groups, 0))
    conv = padded[:rows] * w.conv[:, 0] + w.conv_bias
    for tap in range(1, taps):
        conv = conv + padded[tap * groups : tap * groups + rows] * w.conv[:, tap]
    y = sequential_ssm(_silu(conv), w, groups, recurrence) * _silu(z)
    return torch.matmul(y, w.out_proj.t()).reshape(length, 1, groups, d_model)


def sequential_ssm(x: Tensor, w: StateSpace, groups: int, recurrence: Callable[..., Tensor]) -> Tensor:
    """State space over x (length * groups, d_inner), time first -> same shape."""
    d_inner, d_state = int(w.A.shape[0]), int(w.A.shape[1])
    rows = int(x.shape[0])
    length, rank = rows // groups, int(w.dt_proj.shape[1])
    r, B, C = torch.matmul(x, w.x_proj.t()).split([rank, d_state, d_state], 1)
    dt = softplus(torch.matmul(r, w.dt_proj.t()) + w.dt_bias)
    y = recurrence(
        dt.reshape(length, groups, 1, d_inner),
        (dt * x).reshape(length, groups, 1, d_inner),
        w.A.t().reshape(1, 1, d_state, d_inner),
        B.reshape(length, groups, d_state, 1),
        C.reshape(length, groups, d_state, 1),
    ).reshape(rows, d_inner)
    return y + w.D * x


def sequential(dt: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Recurrence over dt, u (L, G, 1, D), B, C (L, G, N, 1), A (1, 1 or G, N, D) -> (L, G, 1, D)."""
    length, groups, d_state = (int(n) for n in B.shape[:3])
    # Outer products and contractions are products of matrices, at which runtimes are better than at broadcasting.
    adds = [torch.matmul(b, x) for b, x in zip(B.split(1, 0), u.split(1, 0), strict=True)]
    states = adds[:1]
    for step, add in zip(dt.split(1, 0)[1:], adds[1:], strict=True):
        states.append(torch.exp(step * A) * states[-1] + add)
    outputs = []
    for i, rows in enumerate(C.reshape(length, groups, 1, d_state).split(CONTRACTED_STEPS, 0)):
        part = states[i * CONTRACTED_STEPS : (i + 1) * CONTRACTED_STEPS]
        outputs.append(torch.matmul(rows, torch.cat(part, 0)))
    return torch.cat(outputs, 0)
