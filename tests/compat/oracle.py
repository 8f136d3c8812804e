"""The selective scan in float64 NumPy, step by step and group by group: nothing of the package is in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]


def array(x: Any) -> Array:
    return np.asarray(x.detach().double().numpy() if isinstance(x, Tensor) else x, np.float64)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def scan(
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any = None,
    z: Any = None,
    delta_bias: Any = None,
    delta_softplus: bool = False,
) -> tuple[Array, Array]:
    """y (b, D, L) and the last state (b, D, N)."""
    u, delta, A, B, C = (array(x) for x in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + array(delta_bias)[:, None]
    if delta_softplus:
        delta = np.logaddexp(0, delta)
    batch, channels, length = u.shape
    y, last = np.zeros_like(u), np.zeros((batch, channels, A.shape[1]))

    def row(x: Array, b: int, d: int, t: int) -> Array:
        if x.ndim == 2:
            return x[d]
        return x[b, :, t] if x.ndim == 3 else x[b, d * x.shape[1] // channels, :, t]

    for b in range(batch):
        for d in range(channels):
            h = np.zeros(A.shape[1])
            for t in range(length):
                h = np.exp(delta[b, d, t] * A[d]) * h + delta[b, d, t] * row(B, b, d, t) * u[b, d, t]
                y[b, d, t] = h @ row(C, b, d, t)
            last[b, d] = h
    if D is not None:
        y = y + array(D)[:, None] * u
    if z is not None:
        y = y * silu(array(z))
    return y, last


def inputs(
    batch: int = 2,
    channels: int = 6,
    length: int = 21,
    d_state: int = 3,
    b_form: str = "token",
    c_form: str = "token",
    sets: int = 2,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Arguments of ``selective_scan_fn`` in float64; B and C are "channel", "token" or "grouped"."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    shapes = {
        "channel": (channels, d_state),
        "token": (batch, d_state, length),
        "grouped": (batch, sets, d_state, length),
    }
    return {
        "u": normal(batch, channels, length),
        "delta": normal(batch, channels, length) * 0.5,
        "A": -torch.exp(normal(channels, d_state) * 0.5),
        "B": normal(*shapes[b_form]),
        "C": normal(*shapes[c_form]),
        "D": normal(channels),
        "z": normal(batch, channels, length),
        "delta_bias": normal(channels) * 0.1,
    }
