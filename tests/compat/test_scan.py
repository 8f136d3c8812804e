"""The functions of mamba_ssm and of VMamba's kernels against a float64 sequential reference, in every form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compat import oracle
from edgemamba.compat import raw
from edgemamba.compat.scan import selective_scan_fn, selective_scan_ref, selective_scan_without_gate
from edgemamba.errors import Unsupported
from edgemamba.ssm import Form, active_form, use_form

KINDS = ("channel", "token", "grouped")
TENSORS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def in_form(form: Form, **arguments: object) -> Tensor:
    with use_form(nn.Identity(), form):
        y = selective_scan_fn(**arguments)  # type: ignore[arg-type]
    assert isinstance(y, Tensor)
    return y


@pytest.mark.parametrize(("b_form", "c_form"), list(itertools.product(KINDS, KINDS)))
@pytest.mark.parametrize("form", ["train", "reference", "onnx", "litert"])
def test_every_shape_of_B_and_C_in_every_form(form: Form, b_form: str, c_form: str) -> None:
    given = oracle.inputs(b_form=b_form, c_form=c_form)
    expected, _ = oracle.scan(**given, delta_softplus=True)
    found = in_form(form, **given, delta_softplus=True)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    sets=st.integers(1, 4),
    width=st.integers(1, 5),
    length=st.integers(1, 70),
    d_state=st.integers(1, 5),
    form=st.sampled_from(["train", "onnx", "litert"]),
    softplus=st.booleans(),
    left_out=st.sets(st.sampled_from(["D", "z", "delta_bias"])),
)
def test_any_size(
    batch: int, sets: int, width: int, length: int, d_state: int, form: Form, softplus: bool, left_out: set[str]
) -> None:
    given = oracle.inputs(batch, sets * width, length, d_state, "grouped", "grouped", sets)
    given = {name: tensor for name, tensor in given.items() if name not in left_out}
    if not softplus:
        given["delta"] = given["delta"].abs()
        given.pop("delta_bias", None)
    expected, _ = oracle.scan(**given, delta_softplus=softplus)
    np.testing.assert_allclose(in_form(form, **given, delta_softplus=softplus), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("channels", "d_state", "sets"), [(3200, 2, 1), (4 * 1600, 1, 4)])
@pytest.mark.parametrize("batch", [1, 2])
def test_wide_states_take_the_sequential_graph(channels: int, d_state: int, sets: int, batch: int) -> None:
    given = oracle.inputs(batch, channels, 3, d_state, "grouped", "grouped", sets)
    expected, _ = oracle.scan(**given, delta_softplus=True)
    np.testing.assert_allclose(in_form("onnx", **given, delta_softplus=True), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    given = oracle.inputs(2, 4, 7, 2, kind, "token" if kind == "channel" else kind)
    tensors = [given[name].requires_grad_() for name in TENSORS]
    assert torch.autograd.gradcheck(lambda *t: selective_scan_fn(*t, True), tensors)


@pytest.mark.parametrize("form", ["train", "onnx", "litert"])
@pytest.mark.parametrize("kind", KINDS)
def test_last_state(form: Form, kind: str) -> None:
    given = oracle.inputs(b_form=kind, c_form=kind)
    expected, state = oracle.scan(**given, delta_softplus=True)
    with use_form(nn.Identity(), form):
        found = selective_scan_fn(**given, delta_softplus=True, return_last_state=True)
    np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found[1], state, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_scanned_in_float32(dtype: torch.dtype) -> None:
    given = oracle.inputs(length=200, b_form="grouped", c_form="grouped")
    half = {name: x.to(dtype) if name in ("u", "delta", "B", "C", "z") else x.float() for name, x in given.items()}
    expected, _ = oracle.scan(**half, delta_softplus=True)
    found = selective_scan_fn(**half, delta_softplus=True)
    assert isinstance(found, Tensor) and found.dtype == dtype
    # Half a unit in the last place of the output type, and nothing more.
    np.testing.assert_allclose(found.double(), expected, rtol=torch.finfo(dtype).eps * 0.51, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(selective_scan_fn(**half, delta_softplus=True), found)  # type: ignore[arg-type]


def test_four_directions_on_the_channel_axis_are_four_scans() -> None:
    given = oracle.inputs(1, 4 * 3, 16, 2, "grouped", "grouped", 4)
    whole = selective_scan_fn(**given, delta_softplus=True)
    assert isinstance(whole, Tensor)
    for k, part in enumerate(whole.chunk(4, 1)):
        rows = slice(3 * k, 3 * k + 3)
        one = {name: given[name][:, rows] for name in ("u", "delta", "z")}
        one |= {name: given[name][rows] for name in ("A", "D", "delta_bias")}
        one |= {name: given[name][:, k] for name in ("B", "C")}
        np.testing.assert_allclose(part, oracle.scan(**one, delta_softplus=True)[0], rtol=1e-9, atol=1e-10)


def test_what_is_not_a_scan_is_refused() -> None:
    given = oracle.inputs()
    with pytest.raises(Unsupported, match="complex"):
        selective_scan_fn(**{**given, "A": given["A"].to(torch.complex128)})
    with pytest.raises(ValueError, match=r"B has shape \(2, 3, 20\)"):
        selective_scan_fn(**{**given, "B": given["B"][..., 1:]})
    with pytest.raises(ValueError, match="batch, D, L"):
        selective_scan_fn(**{**given, "u": given["u"][0]})


def test_names_that_do_the_same() -> None:
    given = oracle.inputs(b_form="grouped", c_form="grouped")
    expected = selective_scan_fn(**given, delta_softplus=True)
    assert torch.equal(selective_scan_ref(**given, delta_softplus=True), expected)  # type: ignore[arg-type]
    u, delta, A, B, C, D, _, bias = (given[name] for name in TENSORS)
    found = selective_scan_without_gate(u, delta, A, B, C, D, bias, True)
    np.testing.assert_allclose(found, oracle.scan(u, delta, A, B, C, D, None, bias, True)[0], rtol=1e-9, atol=1e-10)


def autograd(given: dict[str, Tensor], dout: Tensor, names: tuple[str, ...]) -> list[Tensor]:
    known = {name: tensor.clone().requires_grad_() for name, tensor in given.items() if name in names}
    y = selective_scan_fn(**known, delta_softplus=True)
    assert isinstance(y, Tensor)
    return list(torch.autograd.grad(y, [known[name] for name in names], dout))


def test_raw_kernels_of_vmamba() -> None:
    given = oracle.inputs(b_form="grouped", c_form="grouped")
    names = ("u", "delta", "A", "B", "C", "D", "delta_bias")
    u, delta, A, B, C, D, bias = (given[name] for name in names)
    expected, state = oracle.scan(u, delta, A, B, C, D, None, bias, True)
    y, x = raw.grouped_fwd(u, delta, A, B, C, D, bias, True, 1, True)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(x[:, :, -1, 1::2], state, rtol=1e-9, atol=1e-10)
    dout = torch.randn_like(y)
    for rest in ((x, True, 1), (x, None, True)):
        for a, b in zip(
            raw.grouped_bwd(u, delta, A, B, C, D, bias, dout, *rest), autograd(given, dout, names), strict=True
        ):
            torch.testing.assert_close(a, b)
    half, _ = raw.grouped_fwd(u.bfloat16(), delta.bfloat16(), A.float(), B, C, D, bias, True, 1, True)
    assert half.dtype == torch.float32


def test_raw_kernel_of_mamba() -> None:
    given = oracle.inputs()
    u, delta, A, B, C, D, z, bias = (given[name] for name in TENSORS)
    plain, _, gated = raw.mamba_fwd(u, delta, A, B, C, D, z, bias, True)
    np.testing.assert_allclose(plain, oracle.scan(u, delta, A, B, C, D, None, bias, True)[0], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(gated, oracle.scan(**given, delta_softplus=True)[0], rtol=1e-9, atol=1e-10)
    dout, dz = torch.randn_like(u), torch.empty_like(u)
    found = raw.mamba_bwd(u, delta, A, B, C, D, z, bias, dout, None, plain, dz, True, True)
    expected = autograd(given, dout, ("u", "delta", "A", "B", "C", "D", "delta_bias", "z"))
    for a, b in zip(found, expected, strict=False):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(dz, expected[-1])
    torch.testing.assert_close(found[-1], gated)


def test_the_active_form_is_that_of_the_block() -> None:
    assert active_form() == "train"
    with use_form(nn.Identity(), "onnx"):
        assert active_form() == "onnx"
        with use_form(nn.Identity(), "reference"):
            assert active_form() == "reference"
        assert active_form() == "onnx"
    assert active_form() == "train"
