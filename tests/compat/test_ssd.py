"""Mamba-2's scan and block, by the names of other projects, against float64 NumPy step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compat import oracle
from edgemamba.compat.mamba2 import Mamba2, Mamba2Simple
from edgemamba.compat.norms import GatedRMSNorm
from edgemamba.compat.ssd import mamba_chunk_scan_combined, mamba_split_conv1d_scan_combined
from edgemamba.errors import Unsupported
from edgemamba.ssm.ssd import CHUNK


def steps(x: Any, dt: Any, A: Any, B: Any, C: Any, state: Any = None) -> tuple[oracle.Array, oracle.Array]:
    """One token after the other."""
    x, dt, A, B, C = (oracle.array(one) for one in (x, dt, A, B, C))
    share = x.shape[2] // B.shape[2]
    B, C = np.repeat(B, share, 2), np.repeat(C, share, 2)
    state = np.zeros((len(x), *x.shape[2:], B.shape[3])) if state is None else oracle.array(state)
    found = []
    for t in range(x.shape[1]):
        state = np.exp(dt[:, t] * A)[..., None, None] * state
        state = state + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        found.append(np.einsum("bhpn,bhn->bhp", state, C[:, t]))
    return np.stack(found, 1), state


def inputs(length: int, groups: int, share: int, channels: int, states: int, seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    heads = groups * share
    return {
        "x": torch.randn(2, length, heads, channels, generator=draw, dtype=torch.float64),
        "dt": torch.randn(2, length, heads, generator=draw, dtype=torch.float64),
        "A": -torch.rand(heads, generator=draw, dtype=torch.float64) * 16,
        "B": torch.randn(2, length, groups, states, generator=draw, dtype=torch.float64),
        "C": torch.randn(2, length, groups, states, generator=draw, dtype=torch.float64),
    }


@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(1, 3 * CHUNK), groups=st.integers(1, 3), share=st.integers(1, 3), channels=st.integers(1, 5),
    states=st.integers(1, 6), seed=st.integers(0, 99), begun=st.booleans(),
)  # fmt: skip
def test_any_shape(length: int, groups: int, share: int, channels: int, states: int, seed: int, begun: bool) -> None:
    given_ = inputs(length, groups, share, channels, states, seed)
    start = torch.randn(2, groups * share, channels, states, dtype=torch.float64) if begun else None
    bias = torch.randn(groups * share, dtype=torch.float64)
    y, last = mamba_chunk_scan_combined(
        **given_, chunk_size=7, dt_bias=bias, dt_softplus=True, dt_limit=(0.01, 1.5), initial_states=start,
        return_final_states=True,
    )  # fmt: skip
    dt = np.clip(np.logaddexp(0, oracle.array(given_["dt"] + bias)), 0.01, 1.5)
    expected, state = steps(given_["x"], dt, given_["A"], given_["B"], given_["C"], start)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-11 * np.abs(expected).max() + 1e-300)
    np.testing.assert_allclose(last, state, rtol=0, atol=1e-11 * np.abs(state).max() + 1e-300)


@pytest.mark.parametrize("each", [False, True], ids=["skip a head", "skip a channel"])
def test_skip_and_gate(each: bool) -> None:
    given_ = inputs(20, 2, 2, 3, 4, 0)
    given_["dt"] = given_["dt"].exp()
    z = torch.randn(2, 20, 4, 3, dtype=torch.float64)
    D = torch.randn(4, 3, dtype=torch.float64) if each else torch.randn(4, dtype=torch.float64)
    y = mamba_chunk_scan_combined(**given_, chunk_size=8, D=D, z=z)
    plain, _ = steps(*given_.values())
    skipped = plain + oracle.array(given_["x"]) * oracle.array(D).reshape(4, -1)
    np.testing.assert_allclose(y, skipped * oracle.silu(oracle.array(z)), rtol=0, atol=1e-11)


def test_gradients() -> None:
    """Over three chunks, the last one not full."""
    given_ = inputs(2 * CHUNK + 5, 1, 2, 2, 2, 1)
    given_["dt"] = given_["dt"].exp()
    leaves = [tensor[:1].clone().requires_grad_() if name != "A" else tensor.clone().requires_grad_()
              for name, tensor in given_.items()]  # fmt: skip
    y = mamba_chunk_scan_combined(*leaves, 16)
    assert isinstance(y, Tensor)
    gradients = torch.autograd.grad(y.sin().sum(), leaves)
    x, dt, A, B, C = leaves
    state = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    found = []
    for t in range(x.shape[1]):
        state = (dt[:, t] * A).exp()[..., None, None] * state
        state = state + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        found.append((state * C[:, t, :, None]).sum(-1))
    expected = torch.autograd.grad(torch.stack(found, 1).sin().sum(), leaves)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def block(net: Mamba2, u: Tensor, start: Tensor | None = None) -> oracle.Array:
    """The whole block in NumPy."""
    w = {name: oracle.array(tensor) for name, tensor in net.state_dict().items()}
    wide = oracle.array(u) @ w["in_proj.weight"].T
    plain, convolved = net.d_inner - net.d_ssm, w["conv1d.weight"].shape[0]
    z0, x0, z, xbc, dt = np.split(wide, np.cumsum([plain, plain, net.d_ssm, convolved]), -1)
    taps = w["conv1d.weight"].shape[2]
    padded = np.pad(xbc, ((0, 0), (taps - 1, 0), (0, 0)))
    xbc = sum(padded[:, i : i + u.shape[1]] * w["conv1d.weight"][:, 0, i] for i in range(taps)) + w["conv1d.bias"]
    x, B, C = np.split(oracle.silu(xbc), [net.d_ssm, (net.d_ssm + convolved) // 2], -1)
    shape = u.shape[:2]
    x, B, C = x.reshape(*shape, net.nheads, -1), B.reshape(*shape, net.ngroups, -1), C.reshape(*shape, net.ngroups, -1)
    y, _ = steps(x, np.logaddexp(0, dt + w["dt_bias"]), -np.exp(w["A_log"]), B, C, start)
    y = (y + x * w["D"].reshape(net.nheads, -1)).reshape(*shape, -1)
    y = y * oracle.silu(z)
    if net.rmsnorm:
        grouped = y.reshape(*shape, net.ngroups, -1)
        y = (grouped / np.sqrt((grouped**2).mean(-1, keepdims=True) + 1e-5)).reshape(*shape, -1) * w["norm.weight"]
    y = np.concatenate([oracle.silu(z0) * x0, y], -1)
    return y @ w["out_proj.weight"].T


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ngroups": 2},
        {"d_ssm": 16, "D_has_hdim": True},
        {"rmsnorm": False, "ngroups": 4},
    ],
    ids=str,
)
def test_mamba2(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = Mamba2(16, d_state=6, headdim=8, **options).double()
    u = torch.randn(2, 70, 16, dtype=torch.float64)
    with torch.no_grad():
        y = net(u)
        torch.testing.assert_close(net(u.flatten(0, 1), seqlen=70), y.flatten(0, 1), rtol=0, atol=0)
    np.testing.assert_allclose(y, block(net, u), rtol=0, atol=1e-10)


def test_published_names_and_shapes() -> None:
    """state-spaces/mamba2-130m has such blocks: 768 channels, 24 heads of 64, 128 states."""
    net = Mamba2(768, device="meta")
    assert {name: tuple(p.shape) for name, p in net.named_parameters()} == {
        "in_proj.weight": (3352, 768),
        "conv1d.weight": (1792, 1, 4),
        "conv1d.bias": (1792,),
        "dt_bias": (24,),
        "A_log": (24,),
        "D": (24,),
        "norm.weight": (1536,),
        "out_proj.weight": (768, 1536),
    }


def test_mamba2_simple_with_a_learnt_start() -> None:
    torch.manual_seed(0)
    net = Mamba2Simple(16, d_state=6, headdim=8, learnable_init_states=True).double()
    torch.nn.init.normal_(net.init_states)
    u = torch.randn(2, 9, 16, dtype=torch.float64)
    with torch.no_grad():
        y = net(u)
    start = net.init_states.expand(2, -1, -1, -1)
    np.testing.assert_allclose(y, block(net, u, start), rtol=0, atol=1e-10)


def test_the_call_with_a_projection_is_the_block() -> None:
    torch.manual_seed(0)
    net = Mamba2(16, d_state=6, headdim=8)
    u = torch.randn(1, 30, 16)
    norm = net.norm
    assert isinstance(norm, GatedRMSNorm)
    found, last = mamba_split_conv1d_scan_combined(
        net.in_proj(u), net.conv1d.weight[:, 0], net.conv1d.bias, net.dt_bias, -net.A_log.exp(), net.D, 256,
        rmsnorm_weight=norm.weight, rmsnorm_eps=1e-5, outproj_weight=net.out_proj.weight, headdim=8,
        norm_before_gate=False, return_final_states=True,
    )  # fmt: skip
    torch.testing.assert_close(found, net(u))
    assert last.shape == (1, 4, 8, 6)


def test_half_precision_is_computed_in_float32() -> None:
    given_ = {name: tensor.float() for name, tensor in inputs(40, 1, 2, 4, 4, 2).items()}
    given_["dt"] = F.softplus(given_["dt"])
    half = {name: tensor.bfloat16() if name in "xBC" else tensor for name, tensor in given_.items()}
    rounded = {name: tensor.float() for name, tensor in half.items()}
    y = mamba_chunk_scan_combined(**half, chunk_size=8)
    expected = mamba_chunk_scan_combined(**rounded, chunk_size=8)
    assert isinstance(y, Tensor) and y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected.bfloat16())


def test_what_is_missing_says_so() -> None:
    given_ = inputs(4, 1, 1, 1, 1, 0)
    with pytest.raises(Unsupported, match="packed sequences"):
        mamba_chunk_scan_combined(**given_, chunk_size=8, seq_idx=torch.zeros(2, 4))
    net = Mamba2(8, headdim=8)
    with pytest.raises(Unsupported, match="inference_params"):
        net(torch.zeros(1, 2, 8), inference_params=object())
    with pytest.raises(Unsupported, match="process_group"):
        Mamba2(8, headdim=8, process_group=object())
    with pytest.raises(ValueError, match="headdim=5"):
        Mamba2(8, headdim=5)
