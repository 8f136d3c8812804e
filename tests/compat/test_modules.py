"""Mamba and what lies around its scan, by the names of other projects, against float64 NumPy."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compat import oracle
from edgemamba import ssm
from edgemamba.compat import raw
from edgemamba.compat.applied import BiMambaInnerFn, MambaInnerFn, SelectiveScanFn
from edgemamba.compat.block import Block, SimpleBlock, create_block
from edgemamba.compat.conv import causal_conv1d_fn, causal_conv1d_update
from edgemamba.compat.inner import bimamba_inner_fn, mamba_inner_fn
from edgemamba.compat.mamba import Mamba
from edgemamba.compat.mlp import GatedMLP, _init_weights
from edgemamba.compat.norms import GatedRMSNorm, RMSNorm, layer_norm_fn, rms_norm_fn
from edgemamba.errors import Unsupported


def block(x: Any, w: dict[str, Any], suffix: str = "") -> oracle.Array:
    """Convolution, scan and gate of xz (b, 2D, L) with the weights named ``*suffix``."""
    a = {name: oracle.array(tensor) for name, tensor in w.items()}
    u, z = np.split(oracle.array(x), 2, 1)
    kernel, taps = a[f"conv1d{suffix}.weight"][:, 0], a[f"conv1d{suffix}.weight"].shape[2]
    padded = np.pad(u, ((0, 0), (0, 0), (taps - 1, 0)))
    u = sum(padded[..., i : i + u.shape[2]] * kernel[:, i, None] for i in range(taps))
    u = oracle.silu(u + a[f"conv1d{suffix}.bias"][:, None]) if f"conv1d{suffix}.bias" in a else oracle.silu(u)
    rank, d_state = a[f"dt_proj{suffix}.weight"].shape[1], a[f"A{suffix}_log"].shape[1]
    maps = np.einsum("ed,bdl->bel", a[f"x_proj{suffix}.weight"], u)
    delta = np.einsum("dr,brl->bdl", a[f"dt_proj{suffix}.weight"], maps[:, :rank])
    rates = -np.exp(a[f"A{suffix}_log"])
    B, C = maps[:, rank : rank + d_state], maps[:, rank + d_state :]
    return oracle.scan(u, delta, rates, B, C, a[f"D{suffix}"], z, a[f"dt_proj{suffix}.bias"], True)[0]


def expected(net: Mamba, x: Tensor) -> oracle.Array:
    w: dict[str, Any] = net.state_dict()
    xz = np.einsum("ed,bld->bel", oracle.array(w["in_proj.weight"]), oracle.array(x))
    if "in_proj.bias" in w:
        xz = xz + oracle.array(w["in_proj.bias"])[:, None]
    y = block(xz, w)
    if net.bimamba_type == "v1":
        back = block_v1(xz, w)
        y = y + back
    if net.bimamba_type in ("v2", "v3"):
        y = y + block(xz[..., ::-1], w, "_b")[..., ::-1]
    if net.bimamba_type == "v2" and net.if_divide_out:
        y = y / 2
    if net.bimamba_type == "v3":
        # Token t of slice s is scanned as number t * nslices + s.
        order = np.arange(xz.shape[2]).reshape(net.nslices, -1).T.reshape(-1)
        sliced = np.empty_like(y)
        sliced[..., order] = block(xz[..., order], w, "_s")
        y = y + sliced
    out = np.einsum("cd,bdl->blc", oracle.array(w["out_proj.weight"]), y)
    if "out_proj.bias" in w:
        out = out + oracle.array(w["out_proj.bias"])
    return out * oracle.array(w["gamma"]) if "gamma" in w else out


def block_v1(xz: oracle.Array, w: dict[str, Any]) -> oracle.Array:
    """The maps of the forward direction, scanned from the end with rates of their own."""
    a = {name: oracle.array(tensor) for name, tensor in w.items()}
    u, z = np.split(xz, 2, 1)
    kernel = a["conv1d.weight"][:, 0]
    padded = np.pad(u, ((0, 0), (0, 0), (3, 0)))
    u = oracle.silu(
        sum(padded[..., i : i + u.shape[2]] * kernel[:, i, None] for i in range(4)) + a["conv1d.bias"][:, None]
    )
    rank, d_state = a["dt_proj.weight"].shape[1], a["A_log"].shape[1]
    maps = np.einsum("ed,bdl->bel", a["x_proj.weight"], u)[..., ::-1]
    delta = np.einsum("dr,brl->bdl", a["dt_proj.weight"], maps[:, :rank])
    B, C = maps[:, rank : rank + d_state], maps[:, rank + d_state :]
    rates = -np.exp(a["A_b_log"])
    back = oracle.scan(u[..., ::-1], delta, rates, B, C, a["D"], z[..., ::-1], a["dt_proj.bias"], True)[0]
    return back[..., ::-1]


def shaken(net: nn.Module) -> nn.Module:
    """Weights that hide nothing: no zero, no two equal."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": True, "conv_bias": False, "d_conv": 3, "expand": 1, "d_state": 5, "dt_rank": 3},
        {"bimamba_type": "v1"},
        {"bimamba_type": "v2", "if_divide_out": True, "init_layer_scale": 0.5},
        {"bimamba_type": "v2", "bias": True},
        {"bimamba_type": "v3", "nslices": 4},
        {"bimamba_type": None, "dt_init": "constant"},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["train", "onnx"])
def test_mamba(options: dict[str, Any], form: ssm.Form) -> None:
    torch.manual_seed(0)
    net = shaken(Mamba(8, **options)).double()
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    with ssm.use_form(net, form), torch.no_grad():
        found = net(x)
    # Rates and skip are float32 in the original, whatever the rest is.
    np.testing.assert_allclose(found, expected(net, x), rtol=2e-5, atol=2e-6)


def test_plain_mamba_is_this_projects_mamba() -> None:
    torch.manual_seed(0)
    ours, theirs = ssm.Mamba(16), Mamba(16)
    assert list(theirs.state_dict()) and theirs.state_dict().keys() == ours.state_dict().keys()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 50, 16)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-6)
    dt = torch.nn.functional.softplus(Mamba(64).dt_proj.bias)
    assert dt.min() >= 1e-4 and dt.max() <= 0.1001


def test_state_dict_names_of_two_and_three_directions() -> None:
    one = {"A_log", "D", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias"}
    ends = {"in_proj.weight", "out_proj.weight"}

    def turned(suffix: str) -> set[str]:
        renamed = {f"{name.partition('.')[0]}{suffix}.{name.partition('.')[2]}".removesuffix(".") for name in one}
        return (renamed - {f"A_log{suffix}"}) | {f"A{suffix}_log"}

    assert set(Mamba(8, bimamba_type="v2").state_dict()) == one | ends | turned("_b")
    assert set(Mamba(8, bimamba_type="v3").state_dict()) == one | ends | turned("_b") | turned("_s")
    assert set(Mamba(8, bimamba_type="v1").state_dict()) == one | ends | {"A_b_log"}


def test_what_mamba_refuses() -> None:
    with pytest.raises(Unsupported, match="bimamba_type='v4'"):
        Mamba(8, bimamba_type="v4")
    with pytest.raises(ValueError, match="12 tokens cannot be divided into nslices=5"):
        Mamba(8, bimamba_type="v3")(torch.zeros(1, 12, 8))
    with pytest.raises(Unsupported, match="inference_params"):
        Mamba(8)(torch.zeros(1, 4, 8), inference_params=object())


def test_inner_functions_are_the_block_between_its_projections() -> None:
    torch.manual_seed(0)
    for net in (Mamba(8), Mamba(8, bimamba_type="v1")):
        xz = net.in_proj(torch.randn(2, 11, 8)).transpose(1, 2)
        first = (xz, net.conv1d.weight, net.conv1d.bias, net.x_proj.weight, net.dt_proj.weight)
        out = (net.out_proj.weight, None, -torch.exp(net.A_log))
        rest = {"D": net.D, "delta_bias": net.dt_proj.bias}
        w = net.state_dict()
        y = block(xz, w)
        if net.bimamba_type == "v1":
            y = y + block_v1(oracle.array(xz), w)
            found = bimamba_inner_fn(*first, *out, -torch.exp(net.A_b_log), **rest)
        else:
            found = mamba_inner_fn(*first, *out, **rest)
        reference = np.einsum("cd,bdl->blc", oracle.array(w["out_proj.weight"]), y)
        np.testing.assert_allclose(found.detach(), reference, rtol=1e-4, atol=1e-6)


def test_causal_convolution_and_its_update() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 5, 9), torch.randn(5, 4), torch.randn(5)
    padded = np.pad(oracle.array(x), ((0, 0), (0, 0), (3, 0)))
    reference = sum(padded[..., i : i + 9] * oracle.array(weight)[:, i, None] for i in range(4))
    reference = reference + oracle.array(bias)[:, None]
    np.testing.assert_allclose(causal_conv1d_fn(x, weight, bias), reference, rtol=1e-5, atol=1e-6)
    gated = causal_conv1d_fn(x, weight, bias, "silu")  # type: ignore[arg-type]
    np.testing.assert_allclose(gated, oracle.silu(reference), rtol=1e-5, atol=1e-6)
    state = torch.zeros(2, 5, 4)
    steps = [causal_conv1d_update(x[..., t], state, weight, bias, "silu") for t in range(9)]
    torch.testing.assert_close(torch.stack(steps, -1), gated)
    assert torch.equal(state, x[..., -4:])
    with pytest.raises(Unsupported, match="final states"):
        causal_conv1d_fn(x, weight, return_final_states=True)
    with pytest.raises(NotImplementedError, match="gelu"):
        causal_conv1d_fn(x, weight, activation="gelu")


def test_raw_convolution_of_every_release() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 5, 9), torch.randn(5, 4), torch.randn(5)
    expected = causal_conv1d_fn(x, weight, bias, activation="silu")
    for rest in ((True,), (None, True), (None, None, None, True)):
        assert torch.equal(raw.conv_fwd(x, weight, bias, *rest), expected)
    out = torch.empty_like(x)
    raw.conv_fwd(x, weight, bias, None, None, out, None, True)
    assert torch.equal(out, expected)
    known = [t.clone().requires_grad_() for t in (x, weight, bias)]
    dout, dx = torch.randn_like(x), torch.empty_like(x)
    gradients = torch.autograd.grad(causal_conv1d_fn(*known, activation="silu"), known, dout)
    for a, b in zip(raw.conv_bwd(x, weight, bias, dout, None, dx, True), gradients, strict=False):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(dx, gradients[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rms", [True, False])
def test_fused_normalisation(rms: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, residual = torch.randn(2, 7, 6).to(dtype), torch.randn(2, 7, 6)
    weight, bias = torch.rand(6), None if rms else torch.randn(6)
    function = rms_norm_fn if rms else layer_norm_fn
    y, total = function(x, weight, bias, residual=residual, prenorm=True, residual_in_fp32=True, eps=1e-5)
    kept = oracle.array(x) + oracle.array(residual)
    centred = kept if rms else kept - kept.mean(-1, keepdims=True)
    reference = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * oracle.array(weight)
    reference = reference if bias is None else reference + oracle.array(bias)
    assert y.dtype == dtype and total.dtype == torch.float32
    np.testing.assert_allclose(total, kept, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(y.double(), reference, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    assert torch.equal(function(x, weight, bias, residual=residual, eps=1e-5), y)
    if rms:
        norm = RMSNorm(6)
        norm.weight.data.copy_(weight)
        assert torch.equal(norm(x, residual=residual), y)
    with pytest.raises(Unsupported, match="dropout"):
        function(x, weight, bias, dropout_p=0.1)


def test_gated_normalisation() -> None:
    torch.manual_seed(0)
    x, z = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    norm = shaken(GatedRMSNorm(8, group_size=4))
    groups = oracle.array(x).reshape(2, 3, 2, 4)
    reference = (groups / np.sqrt((groups**2).mean(-1, keepdims=True) + 1e-5)).reshape(2, 3, 8)
    reference = reference * oracle.array(norm.weight) * oracle.silu(oracle.array(z))
    np.testing.assert_allclose(norm(x, z).detach(), reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rms", [True, False])
def test_blocks_carry_the_sum(rms: bool) -> None:
    torch.manual_seed(0)
    norm = partial(RMSNorm if rms else nn.LayerNorm, eps=1e-5)
    layer = SimpleBlock(8, Mamba, norm, fused_add_norm=True, residual_in_fp32=True)
    x, residual = torch.randn(2, 6, 8), torch.randn(2, 6, 8)
    out, total = layer(x, residual)
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(out, layer.mixer(layer.norm(x + residual)))
    first, kept = layer(x)
    assert torch.equal(kept, x) and torch.equal(first, layer.mixer(layer.norm(x)))
    assert isinstance(create_block(8, rms_norm=rms, layer_idx=3).mixer, Mamba)
    both = Block(8, Mamba, lambda dim: nn.Linear(dim, dim), norm)
    out, total = both(x)
    assert torch.equal(out, both.mlp(both.norm2(total))) and "norm2.weight" in both.state_dict()


def test_gated_mlp() -> None:
    torch.manual_seed(0)
    mlp, x = GatedMLP(6, multiple_of=4), torch.randn(2, 3, 6)
    assert mlp.fc1.weight.shape == (32, 6) and mlp.fc2.weight.shape == (6, 16)
    value, gate = np.split(oracle.array(x) @ oracle.array(mlp.fc1.weight).T, 2, -1)
    expected = (value * gate / (1 + np.exp(-gate))) @ oracle.array(mlp.fc2.weight).T
    np.testing.assert_allclose(oracle.array(mlp(x)), expected, rtol=0, atol=1e-6)


def test_weights_around_mamba_start_smaller_with_depth() -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"block": Mamba(8, bias=True), "mlp": GatedMLP(8, bias=True), "table": nn.Embedding(50, 8)})
    rates = net["block"].dt_proj.bias.detach().clone()
    net.apply(partial(_init_weights, n_layer=100))
    assert torch.equal(net["block"].dt_proj.bias, rates) and not net["block"].in_proj.bias.any()
    # Uniform within 1 / sqrt(inputs), a tenth of that in a hundred layers.
    assert 0 < net["block"].out_proj.weight.abs().max() <= 0.1 / 16**0.5
    assert not net["mlp"].fc1.bias.any() and net["table"].weight.std() < 0.03


def test_autograd_functions_are_called_by_apply() -> None:
    assert MambaInnerFn.apply is mamba_inner_fn and BiMambaInnerFn.apply is bimamba_inner_fn
    u, delta, rates, maps = torch.randn(1, 2, 5), torch.rand(1, 2, 5), -torch.rand(2, 3), torch.randn(1, 3, 5)
    y = SelectiveScanFn.apply(u, delta, rates, maps, maps, None, None, None, True)
    assert y.shape == u.shape
