"""The probe that doctor runs, and what it runs on."""

import pytest
import torch

from edgemamba.ssm import parity
from edgemamba.ssm.two_pass import backend, chunk_length, triton_lacks, two_pass_scan

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
    assert triton_lacks("cpu") == "an NVIDIA GPU"
    assert [chunk_length(length) for length in (1, 64, 256, 1024, 4096)] == [1, 8, 16, 32, 32]
    assert chunk_length(1024, "meta") == 8
