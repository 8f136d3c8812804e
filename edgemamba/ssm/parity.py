"""A quick proof that the training scan computes the recurrence and its gradients on this machine's devices."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor

from edgemamba.ssm.reference import selective_scan
from edgemamba.ssm.two_pass import chunk_length, from_scan_order, to_scan_order, two_pass_scan


def scan_error(device: str, *, length: int = 257, seed: int = 0) -> float:
    """Largest error of the float32 training scan relative to the largest output of the float64 reference.

    Decays run from almost none to e^-30 a step; 3 sequences of ``length`` tokens, d_inner 12, d_state 16.

    Args:
        device: a torch device, such as cpu or cuda.
    """
    inputs = _inputs(length, seed)
    return _relative(_train(inputs, device), _reference(inputs))


def gradient_error(device: str, *, length: int = 257, seed: int = 0) -> float:
    """The same for the gradients of all six inputs: the largest of their relative errors."""
    inputs = [tensor.requires_grad_() for tensor in _inputs(length, seed)]
    expected = _reference(inputs)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    exact = torch.autograd.grad(expected, inputs, weights)
    found = torch.autograd.grad(_train(inputs, device), inputs, weights)
    return max(_relative(a, b) for a, b in zip(found, exact, strict=True))


def scan_seconds(device: str, *, rounds: int = 7) -> float:
    """Median seconds of the scan's forward and backward pass in UL-VM-UNet's largest layer, batch 8."""
    shape = (12, chunk_length(1024, device), -1, 32)
    x, dt = torch.rand(2, 12 * 1024 * 32, device=device).mul(0.1).requires_grad_()
    B, C = torch.rand(2, 16 * 1024 * 32, device=device).requires_grad_()
    A = -torch.arange(1.0, 17.0, device=device).repeat(12, 1).requires_grad_()
    D = torch.ones(12, device=device, requires_grad=True)
    seconds = []
    for _ in range(rounds + 1):
        _wait(device)
        started = time.perf_counter()
        states = (16, *shape[1:])
        y = two_pass_scan(x.view(shape), dt.view(shape), A, B.view(states), C.view(states), D)
        torch.autograd.grad(y.sum(), (x, dt, A, B, C, D))
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _inputs(length: int, seed: int) -> list[Tensor]:
    """x, dt, A, B, C, D in float64."""
    generator = torch.Generator().manual_seed(seed)
    groups, d_inner, d_state = 3, 12, 16
    x = torch.randn(groups, d_inner, length, generator=generator, dtype=torch.float64)
    dt = torch.exp(torch.rand(groups, d_inner, length, generator=generator, dtype=torch.float64) * 7 - 6.5)
    A = -torch.arange(1, d_state + 1, dtype=torch.float64).repeat(d_inner, 1)
    B, C = torch.randn(2, groups, d_state, length, generator=generator, dtype=torch.float64)
    return [x, dt, A, B, C, torch.ones(d_inner, dtype=torch.float64)]


def _reference(inputs: list[Tensor]) -> Tensor:
    x, dt, A, B, C, D = inputs
    return selective_scan(x, dt, A, B, C, D)


def _train(inputs: list[Tensor], device: str) -> Tensor:
    """y of the training scan in float32 on ``device``, brought back as float64."""
    x, dt, A, B, C, D = (tensor.to(device, torch.float32) for tensor in inputs)
    length = int(x.shape[2])
    chunk = chunk_length(length, device)
    x, dt, B, C = (to_scan_order(tensor, chunk) for tensor in (x, dt, B, C))
    return from_scan_order(two_pass_scan(x, dt, A, B, C, D), length).cpu().double()


def _relative(found: Tensor, expected: Tensor) -> float:
    # Of a single step the gradient of A is zero: the bound turns 0 / 0 into 0.
    return float((found - expected).detach().abs().max() / expected.detach().abs().max().clamp(min=1e-30))
