"""The selective scan for training: two passes over chunks, all chunks side by side.

Time ``t = k * Q + q`` is split into K chunks of Q steps. Tensors are in *scan order*: axes (channel, q, k, group), so that
one step of every chunk is one contiguous piece and only the position inside the chunk is a Python loop.

1. every chunk from a zero state -> its end state E; the decay of a whole chunk is ``exp(A * sum dt)``, rounded once;
2. carry over chunks by doubling -> the true start state H of every chunk;
3. the exact recurrence again, from H.

Only products of decays in (0, 1] and sums occur, so nothing overflows whatever dt is. Autograd keeps the inputs and H;
decays and states are computed again in the backward pass, whose adjoint recurrence is the same scan run backwards.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def chunk_length(length: int, device_type: str = "cpu") -> int:
    """Steps per chunk: near the square root of ``length`` on CPU (32, 16, 8 for 1024, 256, 64), few launches on CUDA."""
    limit = 32 if device_type == "cpu" else 8
    chunk = 1
    while chunk < limit and chunk * chunk * 2 <= length:
        chunk *= 2
    return chunk


def to_scan_order(x: Tensor, chunk: int) -> Tensor:
    """(groups, channels, length) -> (channels, Q, K, groups), padded with zeros to whole chunks.

    Padding lies after the last real step, so it changes neither the outputs that are kept nor their gradients.
    """
    groups, channels, length = x.shape
    padding = -length % chunk
    if padding:
        x = F.pad(x, (0, padding))
    return x.reshape(groups, channels, (length + padding) // chunk, chunk).permute(1, 3, 2, 0)


def from_scan_order(y: Tensor, length: int) -> Tensor:
    """(channels, Q, K, groups) -> (groups, channels, length): undo ``to_scan_order``."""
    return y.permute(3, 0, 2, 1).flatten(2)[..., :length]


def with_history(x: Tensor, steps: int, groups: int) -> Tensor:
    """Put the ``steps`` time steps before each chunk in front of it: (channels, Q, K*G) -> (channels, steps + Q, K*G).

    They are the last steps of the chunks before; zeros before the first chunk.
    """
    chunk, positions = int(x.shape[1]), int(x.shape[2])
    if steps <= chunk:
        before = F.pad(x[:, chunk - steps :, : positions - groups], (groups, 0))
        return torch.cat([before, x], 1)
    rows = []
    for q in range(-steps, 0):
        shift = min(groups * -(q // chunk), positions)
        rows.append(F.pad(x[:, q % chunk, : positions - shift], (shift, 0))[:, None])
    return torch.cat([*rows, x], 1)


def two_pass_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Selective scan over tensors in scan order, float32 inside (float64 for float64 inputs), differentiable.

    Args:
        x: input, (d_inner, Q, K, groups).
        dt: positive step sizes, shaped like ``x``.
        A: (d_inner, d_state), negative.
        B: input map, (d_state, Q, K, groups).
        C: output map, (d_state, Q, K, groups).
        D: skip, (d_inner).

    Returns:
        y, shaped like ``x``.

    Source: Gu and Dao, "Mamba", section 3.3.2; memory by recomputation as in its section 3.3.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    with torch.autocast(x.device.type, enabled=False):
        # Steps are written in place through views, which needs whole rows.
        tensors = [tensor.to(dtype).contiguous() for tensor in (x, dt, A, B, C, D)]
        result: Tensor = _TwoPassScan.apply(*tensors)
    return result


def _carry(end: Tensor, decay: Tensor, groups: int) -> Tensor:
    """End states from zero and chunk decays, (D, N, K*G), -> true start state of every chunk."""
    positions = end.shape[-1]
    shift = groups
    while shift < positions:
        end = torch.cat(
            [end[..., :shift], torch.addcmul(end[..., shift:], decay[..., shift:], end[..., :-shift])], -1
        )
        if 2 * shift < positions:
            decay = torch.cat([decay[..., :shift], decay[..., shift:] * decay[..., :-shift]], -1)
        shift *= 2
    return F.pad(end[..., :-groups], (groups, 0))


def _steps(x: Tensor) -> tuple[Tensor, ...]:
    """(channels, Q, K, G) -> Q pieces (channels, K*G)."""
    return x.flatten(2).unbind(1)


class _TwoPassScan(torch.autograd.Function):
    """Saves the inputs and the chunk-start states; recomputes decays and states."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        groups = x.shape[3]
        u = _steps(dt * x)
        inputs, outputs, rates = _steps(B), _steps(C), A[:, :, None]
        decays = [torch.exp_(step[:, None] * rates) for step in _steps(dt)]
        state = u[0][:, None] * inputs[0]
        for q in range(1, len(u)):
            state.mul_(decays[q]).addcmul_(u[q][:, None], inputs[q])
        start = _carry(state, torch.exp_(dt.sum(1).flatten(1)[:, None] * rates), groups)
        y = D[:, None, None, None] * x
        state = start.clone()
        for q, out in enumerate(_steps(y)):
            state.mul_(decays[q]).addcmul_(u[q][:, None], inputs[q])
            out.add_((state * outputs[q]).sum(1))
        ctx.save_for_backward(x, dt, A, B, C, D, start)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        (grad_y,) = grads
        x, dt, A, B, C, D, start = ctx.saved_tensors
        groups, length = x.shape[3], x.shape[1]
        steps, u, gy = _steps(dt), _steps(dt * x), _steps(grad_y)
        inputs, outputs, rates = _steps(B), _steps(C), A[:, :, None]
        decays, states = [], [start]
        for q in range(length):
            decays.append(torch.exp_(steps[q][:, None] * rates))
            states.append((decays[q] * states[q]).addcmul_(u[q][:, None], inputs[q]))
        # message[q] = a[q] * (C[q] gy[q] + message[q + 1]) is what step q hands back to step q - 1.
        message = torch.zeros_like(start)
        for q in reversed(range(length)):
            message.addcmul_(gy[q][:, None], outputs[q]).mul_(decays[q])
        total = torch.exp_(dt.sum(1).flatten(1)[:, None] * rates)
        message = _carry(message.flip(-1), total.flip(-1), groups).flip(-1)
        grad_u, grad_dt, grad_B, grad_C = (torch.empty_like(t) for t in (x, x, B, C))
        grad_A = torch.zeros_like(A)
        for q in reversed(range(length)):
            grad_state = message.addcmul_(gy[q][:, None], outputs[q])
            torch.sum(grad_state * inputs[q], 1, out=_steps(grad_u)[q])
            torch.sum(grad_state * u[q][:, None], 0, out=_steps(grad_B)[q])
            torch.sum(states[q + 1] * gy[q][:, None], 0, out=_steps(grad_C)[q])
            message = grad_state * decays[q]
            grad_log = message * states[q]
            torch.sum(grad_log * rates, 1, out=_steps(grad_dt)[q])
            grad_A += (grad_log @ steps[q][:, :, None]).squeeze(-1)
        grad_dt.addcmul_(grad_u, x)
        grad_x = grad_u * dt + grad_y * D[:, None, None, None]
        return grad_x, grad_dt, grad_A, grad_B, grad_C, (grad_y * x).sum((1, 2, 3))
