"""The scan written for LiteRT against the float64 recurrence, over lengths, shapes and hostile decays."""

from __future__ import annotations

import pytest
import torch
from tflite_run import names, run
from torch import Tensor, nn

from edgemamba.ssm import Mamba, use_form
from edgemamba.ssm.reference import selective_scan
from edgemamba.stages.to_tflite import convert

# dt in powers of ten: hardly any decay, the usual, and decays that underflow.
STEPS = {"slow": (-4.0, -3.0), "usual": (-2.5, -0.5), "mixed": (-4.0, 1.3)}


class Recurrence(nn.Module):
    """The two-pass operator alone; its four inputs come stacked in one tensor (D + D + N + N, Q, K, G)."""

    def __init__(self, A: Tensor) -> None:
        super().__init__()
        self.register_buffer("A", A)

    def forward(self, x: Tensor) -> Tensor:
        (D, N), (chunk, chunks, groups) = self.A.shape, x.shape[1:]
        dt, u, B, C = x.reshape(-1, chunk, chunks * groups).split([D, D, N, N], 0)
        two_pass = torch.ops.edgemamba.two_pass
        return two_pass(dt[:, None], u[:, None], self.A[:, :, None, None], B[None], C[None], groups)


class Steps(nn.Module):
    """The sequential operator alone; its inputs come stacked in one tensor (L, G, D + D + N + N)."""

    def __init__(self, A: Tensor) -> None:
        super().__init__()
        self.register_buffer("A", A)

    def forward(self, x: Tensor) -> Tensor:
        D, N = self.A.shape
        dt, u, B, C = x.split([D, D, N, N], 2)
        A = self.A.t()[None, None]
        return torch.ops.edgemamba.sequential(dt[:, :, None], u[:, :, None], A, B[..., None], C[..., None])


def inputs(groups: int, D: int, N: int, length: int, steps: str) -> tuple[Tensor, ...]:
    """u, dt (G, D, L), A (D, N), B, C (G, N, L), float64 values that float32 holds."""
    generator = torch.Generator().manual_seed(length)
    low, high = STEPS[steps]
    dt = 10 ** (torch.rand(groups, D, length, generator=generator) * (high - low) + low)
    x = torch.randn(groups, D, length, generator=generator)
    B, C = torch.randn(2, groups, N, length, generator=generator)
    A = -torch.arange(1.0, N + 1).repeat(D, 1)
    return tuple(t.float().double() for t in (dt * x, dt, A, B, C))


def error(found: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> float:
    """Largest difference from the reference, relative to its largest value."""
    expected = selective_scan(u / dt, dt, A, B, C)
    assert isinstance(expected, Tensor)
    return float((found.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("groups", "chunk", "chunks"), [(1, 4, 1), (2, 8, 2), (3, 8, 3), (4, 8, 8), (2, 16, 13)])
def test_two_pass(groups: int, chunk: int, chunks: int, steps: str) -> None:
    u, dt, A, B, C = inputs(groups, 6, 5, chunk * chunks, steps)
    stacked = torch.cat([dt, u, B, C], 1).reshape(groups, -1, chunks, chunk).permute(1, 3, 2, 0).contiguous()
    model = convert(Recurrence(A.float()), tuple(stacked.shape))
    y = torch.from_numpy(run(model, stacked.float().numpy())).reshape(6, chunk, chunks, groups)
    assert error(y.permute(3, 0, 2, 1).flatten(2), u, dt, A, B, C) < 1e-6
    assert set(names(model)) <= {"SLICE", "RESHAPE", "MUL", "ADD", "EXP", "SUM", "CONCATENATION", "PAD"}


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("groups", "length"), [(1, 1), (3, 2), (2, 33)])
def test_sequential(groups: int, length: int, steps: str) -> None:
    u, dt, A, B, C = inputs(groups, 6, 5, length, steps)
    stacked = torch.cat([dt, u, B, C], 1).permute(2, 0, 1).contiguous()
    model = convert(Steps(A.float()), tuple(stacked.shape))
    y = torch.from_numpy(run(model, stacked.float().numpy())).reshape(length, groups, 6)
    assert error(y.permute(1, 2, 0), u, dt, A, B, C) < 1e-6


@pytest.mark.parametrize(("width", "length"), [(6, 256), (6, 67), (24, 65), (100, 40)])
def test_whole_block(width: int, length: int) -> None:
    """Narrow blocks go by chunks, wide ones step by step; lengths that no chunk divides are padded."""
    torch.manual_seed(width)
    block = Mamba(width).eval()
    x = torch.randn(4, length, width)
    with torch.no_grad(), use_form(block.double(), "reference"):
        expected = block(x.double())
    block.float()
    with use_form(block, "litert"):
        model = convert(block, tuple(x.shape))
    found = torch.from_numpy(run(model, x.numpy())).double()
    assert float((found - expected).abs().max() / expected.abs().max()) < 2e-6
