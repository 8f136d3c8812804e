"""The training scan of ``two_pass`` as fused Triton kernels: states live in registers, float32 throughout.

A program of the grid (blocks of positions, blocks of channels) holds a tile of states, BD channels x BN states x
BP positions p = k * groups + g, and walks through the Q steps of its chunks. It is one warp: a thread has one position
and all the tile's channels and states, so that sums over them need no other thread, and the warp reads 32 neighbours.
Nothing is added atomically: blocks write rows of their own, added afterwards, so results repeat bit for bit.

forward   ``_chunk_ends``, ``_carry`` over the chunks, ``_outputs``
backward  ``_chunk_messages``, ``_carry`` from the last chunk back, ``_states`` before every step, ``_gradients``

Source: the formulas of ``two_pass``.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)

_LANES = 32
# More spill registers, fewer write more rows of the gradients of B and C: 32 and 64 took 1.7 and 3.1 ms for the six
# scans of UL-VM-UNet, batch 64, forward and backward, on an H200.
_STATES_PER_THREAD = 32
_CHANNELS_PER_THREAD = 8
_CARRY_BLOCK = 128

# One compiled kernel for all networks: only positions and groups decide how memory is read.
_TILE_SIZES = ["channels", "d_state", "steps"]
_CARRY_SIZES = ["size", "d_state", "chunks"]


@triton.jit
def _tile(BD: tl.constexpr, BN: tl.constexpr, BP: tl.constexpr):
    """Channels (BD, 1, 1), states (1, BN, 1) and positions (1, 1, BP) of this program."""
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    return d[:, None, None], tl.arange(0, BN)[None, :, None], p[None, None, :]


@triton.jit(do_not_specialize=_TILE_SIZES)
def _chunk_ends(
    x, dt, A, B, end, total, channels, d_state, steps, positions, BD: tl.constexpr, BN: tl.constexpr, BP: tl.constexpr
):
    """End state of every chunk from a zero state, (D, N, P), and its sum of dt, (D, P)."""
    d, n, p = _tile(BD, BN, BP)
    in_d, in_n = (d < channels) & (p < positions), (n < d_state) & (p < positions)
    at_d, at_n = d * steps * positions + p, n * steps * positions + p
    rates = tl.load(A + d * d_state + n, mask=(d < channels) & (n < d_state), other=0.0) * _LOG2_E
    state = tl.zeros([BD, BN, BP], dtype=tl.float32)
    sum_dt = tl.zeros([BD, 1, BP], dtype=tl.float32)
    for q in range(steps):
        step = tl.load(dt + at_d + q * positions, mask=in_d, other=0.0)
        u = step * tl.load(x + at_d + q * positions, mask=in_d, other=0.0)
        b = tl.load(B + at_n + q * positions, mask=in_n, other=0.0)
        state = tl.exp2(step * rates) * state + u * b
        sum_dt += step
    tl.store(end + (d * d_state + n) * positions + p, state, mask=in_d & in_n)
    tl.store(total + d * positions + p, sum_dt, mask=in_d)


@triton.jit(do_not_specialize=_TILE_SIZES)
def _chunk_messages(
    grad_y,
    dt,
    A,
    C,
    end,
    total,
    channels,
    d_state,
    steps,
    positions,
    BD: tl.constexpr,
    BN: tl.constexpr,
    BP: tl.constexpr,
):
    """What every chunk hands back if it gets nothing from the chunk after it, (D, N, P); its sum of dt, (D, P)."""
    d, n, p = _tile(BD, BN, BP)
    in_d, in_n = (d < channels) & (p < positions), (n < d_state) & (p < positions)
    at_d, at_n = d * steps * positions + p, n * steps * positions + p
    rates = tl.load(A + d * d_state + n, mask=(d < channels) & (n < d_state), other=0.0) * _LOG2_E
    message = tl.zeros([BD, BN, BP], dtype=tl.float32)
    sum_dt = tl.zeros([BD, 1, BP], dtype=tl.float32)
    for back in range(steps):
        q = steps - 1 - back
        step = tl.load(dt + at_d + q * positions, mask=in_d, other=0.0)
        gy = tl.load(grad_y + at_d + q * positions, mask=in_d, other=0.0)
        c = tl.load(C + at_n + q * positions, mask=in_n, other=0.0)
        message = tl.exp2(step * rates) * (message + gy * c)
        sum_dt += step
    tl.store(end + (d * d_state + n) * positions + p, message, mask=in_d & in_n)
    tl.store(total + d * positions + p, sum_dt, mask=in_d)


@triton.jit(do_not_specialize=_CARRY_SIZES)
def _carry(end, total, A, start, size, d_state, chunks, groups, BACK: tl.constexpr, BLOCK: tl.constexpr):
    """Ends of chunks that began with zero -> what every chunk truly begins with, (D, N, P); D * N * groups lanes.

    Time runs from the first chunk on, or with BACK from the last chunk back.
    """
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = lane < size
    row = lane // groups
    rate = tl.load(A + row, mask=here, other=0.0) * _LOG2_E
    at = row * chunks * groups + lane % groups
    at_total = (row // d_state) * chunks * groups + lane % groups
    state = tl.zeros([BLOCK], dtype=tl.float32)
    for number in range(chunks):
        k = number
        if BACK:
            k = chunks - 1 - number
        own = tl.load(end + at + k * groups, mask=here, other=0.0)
        sum_dt = tl.load(total + at_total + k * groups, mask=here, other=0.0)
        tl.store(start + at + k * groups, state, mask=here)
        state = tl.exp2(sum_dt * rate) * state + own


@triton.jit(do_not_specialize=_TILE_SIZES)
def _outputs(
    x,
    dt,
    A,
    B,
    C,
    D,
    start,
    y,
    channels,
    d_state,
    steps,
    positions,
    BD: tl.constexpr,
    BN: tl.constexpr,
    BP: tl.constexpr,
):
    """y of every step from the true start states."""
    d, n, p = _tile(BD, BN, BP)
    in_d, in_n = (d < channels) & (p < positions), (n < d_state) & (p < positions)
    at_d, at_n = d * steps * positions + p, n * steps * positions + p
    rates = tl.load(A + d * d_state + n, mask=(d < channels) & (n < d_state), other=0.0) * _LOG2_E
    skip = tl.load(D + d, mask=d < channels, other=0.0)
    state = tl.load(start + (d * d_state + n) * positions + p, mask=in_d & in_n, other=0.0)
    for q in range(steps):
        step = tl.load(dt + at_d + q * positions, mask=in_d, other=0.0)
        x_q = tl.load(x + at_d + q * positions, mask=in_d, other=0.0)
        b = tl.load(B + at_n + q * positions, mask=in_n, other=0.0)
        c = tl.load(C + at_n + q * positions, mask=in_n, other=0.0)
        state = tl.exp2(step * rates) * state + (step * x_q) * b
        y_q = tl.sum(state * c, axis=1, keep_dims=True) + skip * x_q
        tl.store(y + at_d + q * positions, y_q, mask=in_d)


@triton.jit(do_not_specialize=_TILE_SIZES)
def _states(
    x,
    dt,
    A,
    B,
    start,
    before,
    channels,
    d_state,
    steps,
    positions,
    BD: tl.constexpr,
    BN: tl.constexpr,
    BP: tl.constexpr,
):
    """The state before every step, (Q, D, N, P)."""
    d, n, p = _tile(BD, BN, BP)
    in_d, in_n = (d < channels) & (p < positions), (n < d_state) & (p < positions)
    at_d, at_n = d * steps * positions + p, n * steps * positions + p
    at_state = (d * d_state + n) * positions + p
    rates = tl.load(A + d * d_state + n, mask=(d < channels) & (n < d_state), other=0.0) * _LOG2_E
    state = tl.load(start + at_state, mask=in_d & in_n, other=0.0)
    for q in range(steps):
        step = tl.load(dt + at_d + q * positions, mask=in_d, other=0.0)
        u = step * tl.load(x + at_d + q * positions, mask=in_d, other=0.0)
        b = tl.load(B + at_n + q * positions, mask=in_n, other=0.0)
        tl.store(before + q * channels * d_state * positions + at_state, state, mask=in_d & in_n)
        state = tl.exp2(step * rates) * state + u * b


@triton.jit(do_not_specialize=_TILE_SIZES)
def _gradients(
    x,
    dt,
    A,
    B,
    C,
    D,
    grad_y,
    before,
    messages,
    grad_x,
    grad_dt,
    grad_A,
    grad_B,
    grad_C,
    grad_D,
    channels,
    d_state,
    steps,
    positions,
    BD: tl.constexpr,
    BN: tl.constexpr,
    BP: tl.constexpr,
):
    """All gradients, last step first; of A and D one row for each block of positions, of B and C of channels."""
    d, n, p = _tile(BD, BN, BP)
    in_d, in_n = (d < channels) & (p < positions), (n < d_state) & (p < positions)
    in_A = (d < channels) & (n < d_state)
    at_d, at_n = d * steps * positions + p, n * steps * positions + p
    at_state = (d * d_state + n) * positions + p
    rates = tl.load(A + d * d_state + n, mask=in_A, other=0.0) * _LOG2_E
    skip = tl.load(D + d, mask=d < channels, other=0.0)
    message = tl.load(messages + at_state, mask=in_d & in_n, other=0.0)
    sum_A = tl.zeros([BD, BN, BP], dtype=tl.float32)
    sum_D = tl.zeros([BD, 1, BP], dtype=tl.float32)
    into_n = tl.program_id(1) * d_state * steps * positions + at_n
    for back in range(steps):
        q = steps - 1 - back
        step = tl.load(dt + at_d + q * positions, mask=in_d, other=0.0)
        x_q = tl.load(x + at_d + q * positions, mask=in_d, other=0.0)
        gy = tl.load(grad_y + at_d + q * positions, mask=in_d, other=0.0)
        b = tl.load(B + at_n + q * positions, mask=in_n, other=0.0)
        c = tl.load(C + at_n + q * positions, mask=in_n, other=0.0)
        state = tl.load(before + q * channels * d_state * positions + at_state, mask=in_d & in_n, other=0.0)
        decay = tl.exp2(step * rates)
        grad_state = message + gy * c
        grad_u = tl.sum(grad_state * b, axis=1, keep_dims=True)
        grad_b = tl.sum(grad_state * (step * x_q), axis=0, keep_dims=True)
        grad_c = tl.sum((decay * state + (step * x_q) * b) * gy, axis=0, keep_dims=True)
        message = decay * grad_state
        grad_exponent = message * state
        # rates belong to powers of two: ln 2 brings them back to powers of e.
        grad_step = tl.sum(grad_exponent * rates, axis=1, keep_dims=True) * _LN_2
        sum_A += grad_exponent * step
        sum_D += gy * x_q
        tl.store(grad_x + at_d + q * positions, grad_u * step + gy * skip, mask=in_d)
        tl.store(grad_dt + at_d + q * positions, grad_u * x_q + grad_step, mask=in_d)
        tl.store(grad_B + into_n + q * positions, grad_b, mask=in_n)
        tl.store(grad_C + into_n + q * positions, grad_c, mask=in_n)
    into_d = tl.program_id(0) * channels + d
    tl.store(grad_A + into_d * d_state + n, tl.sum(sum_A, axis=2, keep_dims=True), mask=in_A)
    tl.store(grad_D + into_d, tl.sum(sum_D, axis=2, keep_dims=True), mask=d < channels)


def forward(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """``two_pass.scan_forward`` for contiguous float32 tensors of one device; where ``fits`` says so."""
    launch = _Launch(x, A)
    end, total, start = launch.states(), launch.totals(), launch.states()
    y = torch.empty_like(x)
    with torch.cuda.device_of(x):
        launch.tiles(_chunk_ends, x, dt, A, B, end, total)
        launch.carry(end, total, A, start, back=False)
        launch.tiles(_outputs, x, dt, A, B, C, D, start, y)
    return y, start


def backward(
    grad_y: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``two_pass.scan_backward``, likewise."""
    launch = _Launch(x, A)
    end, total, messages = launch.states(), launch.totals(), launch.states()
    before = x.new_empty(launch.steps, *start.shape)
    grad_x, grad_dt = torch.empty_like(x), torch.empty_like(x)
    rows_p, rows_d = launch.grid
    grad_A, grad_D = x.new_empty(rows_p, *A.shape), x.new_empty(rows_p, *D.shape)
    grad_B, grad_C = x.new_empty(rows_d, *B.shape), x.new_empty(rows_d, *C.shape)
    with torch.cuda.device_of(x):
        launch.tiles(_chunk_messages, grad_y, dt, A, C, end, total)
        launch.carry(end, total, A, messages, back=True)
        launch.tiles(_states, x, dt, A, B, start, before)
        inputs = (x, dt, A, B, C, D, grad_y, before, messages)
        launch.tiles(_gradients, *inputs, grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D)
    return grad_x, grad_dt, grad_A.sum(0), _added(grad_B), _added(grad_C), grad_D.sum(0)


def fits(x: Tensor, A: Tensor) -> bool:
    """Whether a tile holds all states and 32-bit offsets reach those of all steps; x: (d_inner, Q, K, groups)."""
    d_state = int(A.shape[1])
    return d_state <= 256 and x.numel() * d_state < 2**31


def _added(rows: Tensor) -> Tensor:
    return rows[0] if rows.shape[0] == 1 else rows.sum(0)


def _blocks(channels: int, d_state: int) -> dict[str, int]:
    """Sides of a tile, powers of two."""
    states = triton.next_power_of_2(d_state)
    rows = min(triton.next_power_of_2(channels), _CHANNELS_PER_THREAD, max(1, _STATES_PER_THREAD // states))
    # Where one channel's states are too many for a thread, several threads of the warp share them.
    return {"BD": rows, "BN": states, "BP": min(_LANES, max(1, _LANES * _STATES_PER_THREAD // (rows * states)))}


class _Launch:
    """Sizes of one scan, and its kernels started with them."""

    def __init__(self, x: Tensor, A: Tensor) -> None:
        self._x = x
        self.channels, self.steps, self.chunks, self.groups = (int(n) for n in x.shape)
        self.d_state = int(A.shape[1])
        self.positions = self.chunks * self.groups
        self._blocks = _blocks(self.channels, self.d_state)
        self.grid = (triton.cdiv(self.positions, self._blocks["BP"]), triton.cdiv(self.channels, self._blocks["BD"]))

    def states(self) -> Tensor:
        """Room for a state of every chunk, (D, N, P)."""
        return self._x.new_empty(self.channels, self.d_state, self.positions)

    def totals(self) -> Tensor:
        """Room for a number of every channel and chunk, (D, P)."""
        return self._x.new_empty(self.channels, self.positions)

    def tiles(self, kernel: Any, *tensors: Tensor) -> None:
        """Run ``kernel`` on every tile."""
        sizes = (self.channels, self.d_state, self.steps, self.positions)
        kernel[self.grid](*tensors, *sizes, **self._blocks, num_warps=1)

    def carry(self, end: Tensor, total: Tensor, A: Tensor, start: Tensor, *, back: bool) -> None:
        """Fill ``start`` with what every chunk begins with."""
        size = self.channels * self.d_state * self.groups
        grid = (triton.cdiv(size, _CARRY_BLOCK),)
        sizes = (size, self.d_state, self.chunks, self.groups)
        _carry[grid](end, total, A, start, *sizes, BACK=back, BLOCK=_CARRY_BLOCK, num_warps=4)
