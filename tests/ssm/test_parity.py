"""The probe that doctor runs, and what it runs on."""

import pytest
import torch

from edgemamba import compat
from edgemamba.errors import Unsupported, UsageError
from edgemamba.ssm import parity
from edgemamba.ssm.backends import available, backend, lacks, use_backend
from edgemamba.ssm.two_pass import by_mamba_ssm, chunk_length, two_pass_scan

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("length", [1, 7, 64, 257, 1024])
def test_scan_and_gradients_are_right(device: str, length: int) -> None:
    assert parity.scan_error(device, length=length) <= 2e-6
    assert parity.gradient_error(device, length=length) <= 2e-6


def test_a_wrong_scan_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(x, dt, A, B, C, D):  # type: ignore[no-untyped-def]
        return two_pass_scan(x, dt, A * 1.001, B, C, D)

    monkeypatch.setattr(parity, "two_pass_scan", forgetful)
    assert parity.scan_error("cpu") > 1e-5
    assert parity.gradient_error("cpu") > 1e-5


def test_cpu_runs_tensor_operations_in_chunks_near_the_square_root() -> None:
    assert backend("cpu") == backend(torch.device("cpu")) == "torch"
    assert lacks("triton", "cpu") == lacks("mamba-ssm", "cpu") == "an NVIDIA GPU"
    assert available("cpu") == ["torch"]
    assert [chunk_length(length) for length in (1, 64, 256, 1024, 4096)] == [1, 8, 16, 32, 32]
    assert chunk_length(1024, "meta") == 8


def test_axes_of_mamba_ssm() -> None:
    """Its kernels need CUDA; the interface is served by ``compat``, whose own tests hold it to the reference."""
    torch.manual_seed(0)
    shape, states = (5, 4, 3, 2), (7, 4, 3, 2)
    x, dt, B, C = (torch.rand(s) for s in (shape, shape, states, states))
    A, D = -torch.rand(5, 7), torch.rand(5)
    with compat.installed():
        found = by_mamba_ssm(x, dt, A, B, C, D)
    torch.testing.assert_close(found, two_pass_scan(x, dt, A, B, C, D), rtol=1e-5, atol=1e-6)


def test_backend_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMAMBA_SCAN", "torch")
    assert backend("cpu") == "torch"
    with use_backend("triton"), pytest.raises(Unsupported, match="lacks an NVIDIA GPU"):
        backend("cpu")
    monkeypatch.setenv("EDGEMAMBA_SCAN", "tritton")
    with pytest.raises(UsageError) as error:
        backend("cpu")
    assert "triton" in error.value.hint
