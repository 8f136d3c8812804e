"""The selective scan for training: two passes over chunks, all chunks side by side.

Time ``t = k * Q + q`` is split into K chunks of Q steps. Tensors are in *scan order*, axes (channel, q, k, group):
one step of every chunk is one contiguous piece, and only the position inside the chunk is a Python loop.

1. every chunk from a zero state -> its end state; a whole chunk decays by ``exp(A * sum dt)``, rounded once;
2. carry over chunks by doubling -> the true start state of every chunk;
3. the exact recurrence again, from there.

Only products of decays in (0, 1] and sums occur, so nothing overflows whatever dt is. Autograd keeps the inputs and
the start states; decays and states are computed again in the backward pass, whose adjoint recurrence is the same
scan run backwards. Shapes are static and nothing waits for the device: a CUDA graph can hold it.

On NVIDIA GPUs mamba-ssm's kernels take over where they are installed, else the same algorithm runs as a few Triton
kernels (``triton_scan``), see ``backends``.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemamba.ssm.backends import backend


def chunk_length(length: int, device: str | torch.device = "cpu") -> int:
    """Steps per chunk Q: near the square root of ``length``; at most 8 where every step is a launch of its own."""
    limit = 32 if torch.device(device).type == "cpu" or backend(device) == "triton" else 8
    chunk = 1
    while chunk < limit and chunk * chunk * 2 <= length:
        chunk *= 2
    return chunk


def to_scan_order(x: Tensor, chunk: int) -> Tensor:
    """(groups, channels, length) -> (channels, Q, K, groups), padded with zeros to whole chunks.

    Padding lies after the last real step, so it changes neither the outputs that are kept nor their gradients.
    """
    groups, channels, length = x.shape
    x = F.pad(x, (0, -length % chunk))
    return x.reshape(groups, channels, -1, chunk).permute(1, 3, 2, 0)


def from_scan_order(y: Tensor, length: int) -> Tensor:
    """(channels, Q, K, groups) -> (groups, channels, length): undo ``to_scan_order``."""
    return y.permute(3, 0, 2, 1).flatten(2)[..., :length]


def with_history(x: Tensor, steps: int, groups: int) -> Tensor:
    """Put the ``steps`` steps before each chunk in front of it: (D, Q, K*groups) -> (D, steps + Q, K*groups).

    They are the last steps of the chunks before; zeros before the first chunk.
    """
    chunk, positions = int(x.shape[1]), int(x.shape[2])
    if steps <= chunk:
        before = F.pad(x[:, chunk - steps :], (groups, -groups))
        return torch.cat([before, x], 1)
    rows = []
    for q in range(-steps, 0):
        shift = min(groups * -(q // chunk), positions)
        rows.append(F.pad(x[:, q % chunk, None], (shift, -shift)))
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

    Source: Gu and Dao, "Mamba", section 3.3.2 and its recomputation of states in the backward pass.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    with torch.autocast(x.device.type, enabled=False):
        # Steps are written in place through views, which needs whole rows.
        tensors = [tensor.to(dtype).contiguous() for tensor in (x, dt, A, B, C, D)]
        if dtype == torch.float32 and backend(x.device) == "mamba-ssm":
            return by_mamba_ssm(*tensors)
        y, _ = scan_forward(*tensors)
        return y


def by_mamba_ssm(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """``two_pass_scan`` by mamba-ssm's ``selective_scan_fn``, whose axes are (group, channel, time)."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    channels, chunk, chunks, groups = x.shape
    rows = [tensor.permute(3, 0, 2, 1).flatten(2).contiguous() for tensor in (x, dt, B, C)]
    y: Tensor = selective_scan_fn(rows[0], rows[1], A, rows[2], rows[3], D)
    return y.view(groups, channels, chunks, chunk).permute(1, 3, 2, 0)


# One operator for torch.compile and torch.export too: what is inside is not to be traced.
@torch.library.custom_op("edgemamba::scan_forward", mutates_args=())
def scan_forward(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """``two_pass_scan`` of contiguous tensors of one type: y, and the start state of every chunk (D, N, KG)."""
    kernels = _triton(x, A)
    return (kernels.forward if kernels else _forward)(x, dt, A, B, C, D)


@torch.library.custom_op("edgemamba::scan_backward", mutates_args=())
def scan_backward(
    grad_y: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B, C and D."""
    kernels = _triton(x, A)
    return (kernels.backward if kernels else _backward)(grad_y, x, dt, A, B, C, D, start)


@scan_forward.register_fake
def _(x: Tensor, _dt: Tensor, A: Tensor, *_rest: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(A.shape[0], A.shape[1], x.shape[2] * x.shape[3])


@scan_backward.register_fake
def _(_grad_y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(tensor) for tensor in inputs[:6])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _gradients(ctx: Any, grad_y: Tensor, _grad_start: Tensor) -> tuple[Tensor, ...]:
    x, *rest = ctx.saved_tensors
    found: tuple[Tensor, ...] = scan_backward(grad_y.to(x.dtype).contiguous(), x, *rest)
    return found


scan_forward.register_autograd(_gradients, setup_context=_keep)


def _triton(x: Tensor, A: Tensor) -> ModuleType | None:
    """The Triton kernels, where they can run and take these sizes."""
    if x.dtype != torch.float32 or backend(x.device) != "triton":
        return None
    from edgemamba.ssm import triton_scan

    return triton_scan if triton_scan.fits(x, A) else None


def _forward(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """Tensor operations; what is kept are the chunks' start states, decays and states are recomputed.

    Shapes inside: states, decays and their gradients (D, N, KG), a step of x or dt (D, KG), of B or C (N, KG).
    """
    groups = x.shape[3]
    u, inputs, outputs, rates = _steps(dt * x), _steps(B), _steps(C), A[:, :, None]
    decays = [torch.exp_(step[:, None] * rates) for step in _steps(dt)]
    state = u[0][:, None] * inputs[0]
    for q in range(1, len(u)):
        state.mul_(decays[q]).addcmul_(u[q][:, None], inputs[q])
    start = _carry(state, _chunk_decay(dt, rates), groups)
    y = D[:, None, None, None] * x
    state = start.clone()
    for q, step in enumerate(_steps(y)):
        state.mul_(decays[q]).addcmul_(u[q][:, None], inputs[q])
        step.add_((state * outputs[q]).sum(1))
    return y, start


def _backward(
    grad_y: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    u, gy, inputs, outputs, rates = _steps(dt * x), _steps(grad_y), _steps(B), _steps(C), A[:, :, None]
    steps = _steps(dt)
    decays, states = [], [start]
    for q, step in enumerate(steps):
        decays.append(torch.exp_(step[:, None] * rates))
        states.append((decays[q] * states[q]).addcmul_(u[q][:, None], inputs[q]))
    # What step q hands back to the step before it is a[q] * (C[q] gy[q] + what it got itself).
    message = torch.zeros_like(start)
    for q in reversed(range(len(steps))):
        message.addcmul_(gy[q][:, None], outputs[q]).mul_(decays[q])
    message = _carry(message.flip(-1), _chunk_decay(dt, rates).flip(-1), x.shape[3]).flip(-1)
    grad_u, grad_dt, grad_B, grad_C = (torch.empty_like(tensor) for tensor in (x, x, B, C))
    grad_A = torch.zeros_like(A)
    into_u, into_dt, into_B, into_C = (_steps(tensor) for tensor in (grad_u, grad_dt, grad_B, grad_C))
    for q in reversed(range(len(steps))):
        grad_state = message.addcmul_(gy[q][:, None], outputs[q])
        torch.sum(grad_state * inputs[q], 1, out=into_u[q])
        torch.sum(grad_state * u[q][:, None], 0, out=into_B[q])
        torch.sum(states[q + 1] * gy[q][:, None], 0, out=into_C[q])
        message = grad_state.mul_(decays[q])
        grad_exponent = message * states[q]
        torch.sum(grad_exponent * rates, 1, out=into_dt[q])
        grad_A += torch.bmm(grad_exponent, steps[q][:, :, None]).squeeze(-1)
    grad_dt.addcmul_(grad_u, x)
    grad_x = (D[:, None, None, None] * grad_y).addcmul_(grad_u, dt)
    return grad_x, grad_dt, grad_A, grad_B, grad_C, (grad_y * x).sum((1, 2, 3))


def _steps(x: Tensor) -> tuple[Tensor, ...]:
    """(channels, Q, K, G) -> Q views (channels, K*G)."""
    return x.flatten(2).unbind(1)


def _chunk_decay(dt: Tensor, rates: Tensor) -> Tensor:
    """Decay over each whole chunk, (D, N, KG)."""
    return torch.exp_(dt.sum(1).flatten(1)[:, None] * rates)


def _carry(end: Tensor, decay: Tensor, groups: int) -> Tensor:
    """End states of chunks started from zero -> true start state of every chunk, (D, N, KG)."""
    last = end.shape[-1] - groups
    end, decay = end[..., :last], decay[..., :last]
    shift = groups
    while shift < last:
        moved = torch.addcmul(end[..., shift:], decay[..., shift:], end[..., :-shift])
        end = torch.cat([end[..., :shift], moved], -1)
        if 2 * shift < last:
            # Below 2 * shift the next round needs no decay.
            decay = torch.cat([decay[..., :shift], decay[..., shift:] * decay[..., :-shift]], -1)
        shift *= 2
    return F.pad(end, (groups, 0))
