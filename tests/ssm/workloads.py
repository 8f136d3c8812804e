"""Inputs of a selective scan over the decays that occur and over those that break careless forms, in float64."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

RANGES = ("trained", "wide", "slow", "constant-1e-4", "constant-1", "constant-30", "spikes")


@dataclasses.dataclass(frozen=True)
class Workload:
    """x, dt (G, D, L), A (D, N), B, C (G, N, L), D (D)."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.x, self.dt, self.A, self.B, self.C, self.D]

    def to(self, dtype: torch.dtype) -> Workload:
        return Workload(*(tensor.to(dtype) for tensor in self.tensors()))


def workload(
    kind: str, length: int, *, groups: int = 2, d_inner: int = 6, d_state: int = 16, seed: int = 0
) -> Workload:
    """Random x, B, C, D, and steps so that ``dt * A`` covers what ``kind`` says.

    trained        dt near ln 2, A = -1 .. -N: what UL-VM-UNet learns
    wide, slow     dt * A log-uniform in -1e-4 .. -30 and -1e-4 .. -1
    constant-x     dt * A = -x everywhere
    spikes         dt = 1e-4, and 20 every 37 steps
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def log_uniform(low: float, high: float) -> Tensor:
        position = torch.rand(groups, d_inner, length, generator=generator, dtype=torch.float64)
        return low * (high / low) ** position

    A = -torch.arange(1, d_state + 1, dtype=torch.float64).expand(d_inner, d_state)
    dt = torch.empty(groups, d_inner, length, dtype=torch.float64)
    if kind == "trained":
        dt = torch.log(torch.tensor(2.0, dtype=torch.float64)) + 0.01 * normal(groups, d_inner, length)
    elif kind in ("wide", "slow"):
        A = -torch.ones(d_inner, d_state, dtype=torch.float64) * torch.linspace(1, 3, d_state, dtype=torch.float64)
        dt = log_uniform(1e-4, 10.0 if kind == "wide" else 1 / 3)
    elif kind == "spikes":
        dt.fill_(1e-4)
        dt[..., ::37] = 20.0
    else:
        A = -torch.ones(d_inner, d_state, dtype=torch.float64)
        dt.fill_(float(kind.removeprefix("constant-")))
    inputs = [normal(groups, channels, length) for channels in (d_inner, d_state, d_state)]
    return Workload(inputs[0], dt, A.contiguous(), inputs[1], inputs[2], normal(d_inner))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected value."""
    scale = float(expected.abs().max())
    return float((found.double() - expected).abs().max()) / scale if scale else float(found.abs().max())
