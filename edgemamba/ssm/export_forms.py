"""The Mamba core as plain tensor operations that export well: static shapes, no control flow, constants folded.

Tokens come in *scan order* (Q, K, groups, d_model), see ``two_pass``. Two algorithms:

* two-pass over chunks, channels first, state (d_inner, d_state, 1, K * groups): small states, long sequences;
* sequential, time first, state (groups, d_state, d_inner): wide states, which a chunked form pushes out of the cache.

Everything is at most 4-D, splits instead of indexing, softplus written as relu(x) + log(1 + exp(-|x|)), no einsum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from edgemamba.ssm.two_pass import chunk_length, with_history

# From this many state elements per step on, chunking only adds passes and leaves the L2 cache.
WIDE_STATE = 6000


@dataclasses.dataclass(frozen=True)
class ExportForm:
    """What ``choose_form`` chose: ``chunk`` is Q; the sequential algorithm has one chunk of the whole length."""

    algorithm: Literal["two-pass", "sequential"]
    chunk: int


def choose_form(length: int, d_inner: int, d_state: int, groups: int) -> ExportForm:
    """The faster algorithm for this size on ONNX Runtime and LiteRT (both agree)."""
    if groups * d_inner * d_state >= WIDE_STATE or length <= 2:
        return ExportForm("sequential", length)
    return ExportForm("two-pass", chunk_length(length))


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of one Mamba block; ``A = -exp(A_log)`` is already a constant."""

    A: Tensor
    D: Tensor
    in_proj: Tensor
    conv: Tensor
    conv_bias: Tensor
    x_proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor
    out_proj: Tensor


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) for every x, from operations that every runtime has fast."""
    return torch.relu(x) + torch.log(1 + torch.exp(-torch.abs(x)))


def two_pass_core(tokens: Tensor, w: Weights, recurrence: Callable[..., Tensor]) -> Tensor:
    """Mamba block over tokens (Q, K, groups, d_model) in scan order, chunked; ``recurrence``: a ``two_pass``."""
    chunk, chunks, groups, d_model = (int(n) for n in tokens.shape)
    d_inner, d_state = int(w.A.shape[0]), int(w.A.shape[1])
    positions = chunks * groups
    flat = tokens.reshape(chunk * positions, d_model)
    x, z = torch.matmul(w.in_proj, flat.t()).split(d_inner, 0)
    x = _silu(
        _causal_conv(x.reshape(d_inner, chunk, positions), w, groups).reshape(d_inner, chunk * positions)
    )
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
    y = (y.reshape(d_inner, chunk * positions) + w.D[:, None] * x) * _silu(z)
    return torch.matmul(y.t(), w.out_proj.t()).reshape(chunk, chunks, groups, d_model)


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _causal_conv(x: Tensor, w: Weights, groups: int) -> Tensor:
    """Depthwise causal convolution over time of x (d_inner, Q, K*groups)."""
    taps, chunk = int(w.conv.shape[1]), int(x.shape[1])
    x = with_history(x, taps - 1, groups)
    y = x[:, :chunk] * w.conv[:, 0, None, None] + w.conv_bias[:, None, None]
    for tap in range(1, taps):
        y = y + x[:, tap : tap + chunk] * w.conv[:, tap, None, None]
    return y


def two_pass(dt: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, groups: int) -> Tensor:
    """Recurrence over dt, u (D, 1, Q, KG), B, C (1, N, Q, KG), A (D, N, 1, 1) -> (D, 1, Q, KG)."""
    chunk = int(dt.shape[2])
    steps, inputs = dt.split(1, 2), u.split(1, 2)
    B_steps, C_steps = B.split(1, 2), C.split(1, 2)
    decays = [torch.exp(step * A) for step in steps]
    adds = [a * b for a, b in zip(inputs, B_steps, strict=True)]
    state = adds[0]
    for q in range(1, chunk):
        state = decays[q] * state + adds[q]
    state = _carry(state, torch.exp(dt.sum(2, keepdim=True) * A), groups)
    outputs = []
    for q in range(chunk):
        state = decays[q] * state + adds[q]
        outputs.append((C_steps[q] * state).sum(1, keepdim=True))
    return torch.cat(outputs, 2)


def _carry(end: Tensor, decay: Tensor, groups: int) -> Tensor:
    """True start state of every chunk from the end states of chunks started at zero, by doubling on the last axis."""
    positions = int(end.shape[3])
    shift = groups
    while shift < positions - groups:
        kept, moved = end[..., :shift], end[..., : positions - shift]
        end = torch.cat([kept, decay[..., -(positions - shift) :] * moved + end[..., shift:]], 3)
        if 2 * shift < positions - groups:
            # Only positions from 2 * shift on are still needed.
            size = int(decay.shape[3])
            tail = positions - 2 * shift
            decay = decay[..., size - tail :] * decay[..., size - tail - shift : size - shift]
        shift *= 2
    return torch.nn.functional.pad(end[..., : positions - groups], (groups, 0))


def sequential_core(tokens: Tensor, w: Weights, recurrence: Callable[..., Tensor]) -> Tensor:
    """Mamba block over tokens (length, 1, groups, d_model), time first; ``recurrence``: a ``sequential``."""
    length, _, groups, d_model = (int(n) for n in tokens.shape)
    d_inner, d_state = int(w.A.shape[0]), int(w.A.shape[1])
    rows = length * groups
    x, z = torch.matmul(tokens.reshape(rows, d_model), w.in_proj.t()).split(d_inner, 1)
    taps = int(w.conv.shape[1])
    padded = torch.nn.functional.pad(x, (0, 0, (taps - 1) * groups, 0))
    conv = padded[:rows] * w.conv[:, 0] + w.conv_bias
    for tap in range(1, taps):
        conv = conv + padded[tap * groups : tap * groups + rows] * w.conv[:, tap]
    x = _silu(conv)
    rank = int(w.dt_proj.shape[1])
    r, B, C = torch.matmul(x, w.x_proj.t()).split([rank, d_state, d_state], 1)
    dt = softplus(torch.matmul(r, w.dt_proj.t()) + w.dt_bias)
    y = recurrence(
        dt.reshape(length, groups, 1, d_inner),
        (dt * x).reshape(length, groups, 1, d_inner),
        w.A.t().reshape(1, 1, d_state, d_inner),
        B.reshape(length, groups, d_state, 1),
        C.reshape(length, groups, d_state, 1),
    ).reshape(rows, d_inner)
    y = (y + w.D * x) * _silu(z)
    return torch.matmul(y, w.out_proj.t()).reshape(length, 1, groups, d_model)


def sequential(dt: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Recurrence over dt, u (L, G, 1, D), B, C (L, G, N, 1), A (1, 1, N, D) -> (L, G, 1, D)."""
    length = int(dt.shape[0])
    steps, inputs = dt.split(1, 0), u.split(1, 0)
    B_steps, C_steps = B.split(1, 0), C.split(1, 0)
    state = inputs[0] * B_steps[0]
    outputs = [(state * C_steps[0]).sum(2, keepdim=True)]
    for t in range(1, length):
        state = torch.exp(steps[t] * A) * state + inputs[t] * B_steps[t]
        outputs.append((state * C_steps[t]).sum(2, keepdim=True))
    return torch.cat(outputs, 0) if length > 1 else outputs[0]
