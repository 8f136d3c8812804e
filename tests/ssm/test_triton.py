"""The Triton kernels against the float64 reference: compiled on a CUDA device, else in Triton's interpreter.

The interpreter of Triton 3.6 and older needs numpy older than 2.4.
"""

import os
from typing import Any

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are defined
pytest.importorskip("triton", reason="only torch's CUDA builds bring Triton; there is nothing to run here")

from edgemamba.ssm import triton_scan  # noqa: E402
from edgemamba.ssm.reference import selective_scan  # noqa: E402
from edgemamba.ssm.two_pass import from_scan_order, to_scan_order  # noqa: E402


def _inputs(length: int, d_inner: int, d_state: int, groups: int) -> list[torch.Tensor]:
    """x, dt, A, B, C, D in float64; decays from almost none to a state forgotten in one step."""
    generator = torch.Generator().manual_seed(length + d_inner)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dt = torch.exp(torch.rand(groups, d_inner, length, generator=generator, dtype=torch.float64) * 7 - 6.5)
    x, B, C = (normal(groups, channels, length) for channels in (d_inner, d_state, d_state))
    return [x, dt, -torch.exp(normal(d_inner, d_state)), B, C, normal(d_inner)]


class _Kernels(torch.autograd.Function):
    """The kernels alone: ``two_pass_scan`` takes them on CUDA only, not in the interpreter."""

    @staticmethod
    def forward(ctx: Any, *inputs: torch.Tensor) -> torch.Tensor:
        y, start = triton_scan.forward(*inputs)
        ctx.save_for_backward(*inputs, start)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return triton_scan.backward(grads[0].contiguous(), *ctx.saved_tensors)


def _triton(inputs: list[torch.Tensor], chunk: int) -> torch.Tensor:
    x, dt, A, B, C, D = (tensor.to(DEVICE, torch.float32) for tensor in inputs)
    length = x.shape[2]
    x, dt, B, C = (to_scan_order(tensor, chunk).contiguous() for tensor in (x, dt, B, C))
    assert triton_scan.fits(x, A)
    return from_scan_order(_Kernels.apply(x, dt, A, B, C, D), length).cpu().double()


@pytest.mark.parametrize(
    ("length", "chunk", "d_inner", "d_state", "groups"),
    [
        (1, 1, 3, 4, 1),
        (7, 2, 3, 4, 2),
        (7, 8, 12, 16, 1),  # one chunk, longer than the sequence
        (31, 1, 3, 16, 2),  # nothing but the carry
        (64, 8, 24, 16, 5),
        (65, 8, 32, 16, 3),
        (37, 4, 16, 4, 4),
        (150, 16, 12, 16, 3),
        (33, 4, 80, 16, 2),  # three blocks of channels
        (9, 2, 5, 100, 1),
    ],
)
def test_outputs_and_gradients(length: int, chunk: int, d_inner: int, d_state: int, groups: int) -> None:
    inputs = [tensor.requires_grad_() for tensor in _inputs(length, d_inner, d_state, groups)]
    expected = selective_scan(*inputs)
    weights = torch.cos(torch.arange(expected.numel(), dtype=torch.float64)).view_as(expected)
    exact = torch.autograd.grad(expected, inputs, weights)
    found = _triton(inputs, chunk)
    gradients = torch.autograd.grad(found, inputs, weights)
    names = ("y", "x", "dt", "A", "B", "C", "D")
    for name, value, reference in zip(names, (found, *gradients), (expected, *exact), strict=True):
        error = float((value - reference).detach().abs().max())
        assert error <= 2e-6 * float(reference.detach().abs().max()), name


def test_repeats_bit_for_bit() -> None:
    inputs = [tensor.requires_grad_() for tensor in _inputs(40, 12, 16, 3)]
    results = []
    for _ in range(2):
        y = _triton(inputs, 8)
        results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_limits() -> None:
    A = torch.empty(12, 16, device="meta")
    assert triton_scan.fits(torch.empty(12, 32, 32, 1024, device="meta"), A)
    assert not triton_scan.fits(torch.empty(12, 32, 32, 16384, device="meta"), A)
    assert not triton_scan.fits(torch.empty(12, 1, 1, 1, device="meta"), torch.empty(12, 257, device="meta"))
