"""A quick proof that the training scan computes the recurrence on this machine's devices."""

from __future__ import annotations

import torch

from edgemamba.ssm.reference import selective_scan
from edgemamba.ssm.two_pass import chunk_length, from_scan_order, to_scan_order, two_pass_scan


def scan_error(device: str, *, length: int = 257, seed: int = 0) -> float:
    """Largest error of the float32 training scan relative to the largest output of the float64 reference.

    Decays run from almost none to e^-30 a step; 3 sequences of ``length`` tokens, d_inner 12, d_state 16.

    Args:
        device: a torch device, such as cpu or cuda.
    """
    generator = torch.Generator().manual_seed(seed)
    groups, d_inner, d_state = 3, 12, 16
    x = torch.randn(groups, d_inner, length, generator=generator, dtype=torch.float64)
    dt = torch.exp(torch.rand(groups, d_inner, length, generator=generator, dtype=torch.float64) * 7 - 6.5)
    A = -torch.arange(1, d_state + 1, dtype=torch.float64).expand(d_inner, d_state)
    B, C = torch.randn(2, groups, d_state, length, generator=generator, dtype=torch.float64)
    D = torch.ones(d_inner, dtype=torch.float64)
    expected = selective_scan(x, dt, A, B, C, D)
    assert isinstance(expected, torch.Tensor)  # no last state was asked for
    chunk = chunk_length(length, torch.device(device).type)
    ordered = [to_scan_order(t.float().to(device), chunk) for t in (x, dt, B, C)]
    rates, skip = A.float().to(device), D.float().to(device)
    y = two_pass_scan(ordered[0], ordered[1], rates, ordered[2], ordered[3], skip)
    found = from_scan_order(y, length).double().cpu()
    return float((found - expected).abs().max() / expected.abs().max())
