"""Every fast form of the scan against the float64 reference: values, gradients, shapes, memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgemamba.ssm import export_forms, scan_op
from edgemamba.ssm.reference import selective_scan
from edgemamba.ssm.two_pass import chunk_length, from_scan_order, to_scan_order, two_pass_scan, with_history
from ssm.workloads import RANGES, Workload, relative_error, workload

FAST = ("train", "train-chunks-of-8", "onnx", "litert", "sequential")
# Float32 and twice its rounding for a thousand steps that each forget next to nothing.
TOLERANCE = 1e-5


def reference(w: Workload) -> Tensor:
    return selective_scan(*w.tensors())


def scan(form: str, w: Workload) -> Tensor:
    """One form over (G, D, L) tensors."""
    length = w.x.shape[2]
    if form.startswith("train"):
        chunk = 8 if form.endswith("8") else chunk_length(length)
        x, dt, B, C = (to_scan_order(t, chunk) for t in (w.x, w.dt, w.B, w.C))
        return from_scan_order(two_pass_scan(x, dt, w.A, B, C, w.D), length)
    return _exported(form, w) + w.D[:, None] * w.x


def _exported(form: str, w: Workload) -> Tensor:
    """The recurrence alone, in the layouts of ``export_forms``."""
    groups, d_inner, length = w.x.shape
    d_state = w.A.shape[1]
    if form == "sequential":
        dt, u = (t.permute(2, 0, 1).reshape(length, groups, 1, d_inner) for t in (w.dt, w.dt * w.x))
        B, C = (t.permute(2, 0, 1).reshape(length, groups, d_state, 1) for t in (w.B, w.C))
        y = export_forms.sequential(dt, u, w.A.t()[None, None], B, C)
        return y.reshape(length, groups, d_inner).permute(1, 2, 0)
    chunk = export_forms.export_chunk(length)
    dt, u = (to_scan_order(t, chunk).reshape(d_inner, 1, chunk, -1) for t in (w.dt, w.dt * w.x))
    B, C = (to_scan_order(t, chunk).reshape(1, d_state, chunk, -1) for t in (w.B, w.C))
    two_pass = scan_op.two_pass if form == "litert" else export_forms.two_pass
    y = two_pass(dt, u, w.A[:, :, None, None], B, C, groups)
    return from_scan_order(y.reshape(d_inner, chunk, -1, groups), length)


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("length", [1, 2, 37, 64, 256, 1024])
def test_values(form: str, kind: str, length: int) -> None:
    w = workload(kind, length)
    assert relative_error(scan(form, w.to(torch.float32)), reference(w)) <= TOLERANCE


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("form", ["train", "onnx"])
def test_values_of_long_sequences(form: str, kind: str) -> None:
    w = workload(kind, 4096, groups=1, d_inner=3)
    assert relative_error(scan(form, w.to(torch.float32)), reference(w)) <= TOLERANCE


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("length", [1, 37, 300])
@pytest.mark.parametrize("form", ["train", "train-chunks-of-8"])
def test_gradients(form: str, kind: str, length: int) -> None:
    w = workload(kind, length, groups=2, d_inner=3, d_state=5)
    weights = torch.randn(w.x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def gradients(inputs: Workload, values: str) -> list[Tensor]:
        tensors = [tensor.requires_grad_() for tensor in inputs.tensors()]
        y = reference(inputs) if values == "reference" else scan(values, inputs)
        return list(torch.autograd.grad((y * weights.to(y.dtype)).sum(), tensors))

    expected = gradients(w, "reference")
    found = gradients(w.to(torch.float32), form)
    for name, a, b in zip(["x", "dt", "A", "B", "C", "D"], found, expected, strict=True):
        assert a.dtype == torch.float32
        assert relative_error(a, b) <= TOLERANCE, name


@pytest.mark.parametrize("length", [1, 3, 16, 50])
def test_gradients_in_float64_are_exact(length: int) -> None:
    w = workload("slow", length, groups=2, d_inner=2, d_state=3)
    tensors = [tensor.requires_grad_() for tensor in w.tensors()]
    assert torch.autograd.gradcheck(lambda *t: scan("train", Workload(*t)), tensors)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    length=st.one_of(st.integers(1, 40), st.sampled_from([53, 97, 127, 128, 251])),
    groups=st.integers(1, 5),
    d_inner=st.integers(1, 7),
    d_state=st.integers(1, 9),
    form=st.sampled_from(FAST),
    seed=st.integers(0, 99),
)
def test_any_shape(length: int, groups: int, d_inner: int, d_state: int, form: str, seed: int) -> None:
    w = workload("wide", length, groups=groups, d_inner=d_inner, d_state=d_state, seed=seed)
    assert relative_error(scan(form, w), reference(w)) <= 1e-12


@settings(max_examples=60, deadline=None, derandomize=True)
@given(length=st.integers(1, 60), chunk=st.integers(1, 20), groups=st.integers(1, 4), steps=st.integers(1, 7))
def test_scan_order_and_history(length: int, chunk: int, groups: int, steps: int) -> None:
    x = torch.arange(1.0, 1 + groups * 2 * length).reshape(groups, 2, length)
    ordered = to_scan_order(x, chunk)
    assert torch.equal(from_scan_order(ordered, length), x)
    with_past = with_history(ordered.reshape(2, chunk, -1), steps, groups).reshape(2, steps + chunk, -1, groups)
    padded = torch.nn.functional.pad(x, (steps, 0))
    for q in range(steps + chunk):
        for k in range(ordered.shape[2]):
            if k * chunk + q - steps < length:
                assert torch.equal(with_past[:, q, k], padded[:, :, k * chunk + q].t())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_scanned_in_float32(dtype: torch.dtype) -> None:
    w = workload("constant-1e-4", 512).to(dtype)
    exact = w.to(torch.float64)
    y = scan("train", w)
    assert y.dtype == torch.float32
    assert relative_error(y, reference(exact)) <= TOLERANCE


def test_results_repeat_bit_for_bit() -> None:
    w = workload("trained", 333).to(torch.float32)

    def run() -> list[Tensor]:
        tensors = [tensor.clone().requires_grad_() for tensor in w.tensors()]
        y = scan("train", Workload(*tensors))
        return [y, *torch.autograd.grad(y.square().sum(), tensors)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_autograd_keeps_inputs_and_chunk_starts_only() -> None:
    w = workload("trained", 1024, groups=4, d_inner=12).to(torch.float32)
    chunk = chunk_length(1024)
    x, dt, B, C = (to_scan_order(t, chunk).contiguous().requires_grad_() for t in (w.x, w.dt, w.B, w.C))
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t):
        two_pass_scan(x, dt, w.A.requires_grad_(), B, C, w.D.requires_grad_())
    states = w.x.numel() * 16
    inputs = sum(t.numel() for t in w.tensors())
    assert sum(t.numel() for t in saved) == inputs + states // chunk


def test_chunks_and_forms_by_size() -> None:
    assert [export_forms.export_chunk(n) for n in (1, 7, 64, 256, 1024, 4096)] == [1, 7, 8, 8, 16, 32]
    base = [(1024, 12), (256, 16), (64, 24), (64, 32)]
    assert {export_forms.choose_form(n, d, 16, 4).algorithm for n, d in base} == {"two-pass"}
    for length, d_inner, groups in ((256, 1024, 1), (65, 384, 2), (64, 128, 8)):
        assert export_forms.choose_form(length, d_inner, 16, groups) == export_forms.ExportForm("sequential", length)


@pytest.mark.parametrize("value", [-90.0, -20.0, -1e-3, 0.0, 1e-3, 20.0, 90.0])
def test_softplus_of_exports(value: float) -> None:
    x = torch.tensor([value])
    expected = torch.nn.functional.softplus(x.double(), threshold=1000)
    torch.testing.assert_close(export_forms.softplus(x).double(), expected, rtol=1e-6, atol=1.2e-7)
