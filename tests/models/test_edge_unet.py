"""Edge-UNet against the same computation written out step by step from its weights, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgemamba.models import build
from edgemamba.registry import MODELS
from edgemamba.ssm import EXPORT_FORMS, set_form

SIZE = 64
State = dict[str, Tensor]


def scanned(state: State, tokens: Tensor) -> Tensor:
    """One Mamba over (L, c), pixel by pixel."""
    xz = tokens @ state["in_proj.weight"].T
    inner = xz.shape[1] // 2
    x, z = xz[:, :inner], xz[:, inner:]
    padded = torch.cat([x.new_zeros(3, inner), x])
    taps = state["conv1d.weight"][:, 0]
    u = F.silu(sum(padded[k : k + len(x)] * taps[:, k] for k in range(4)) + state["conv1d.bias"])
    parts = u @ state["x_proj.weight"].T
    rank = state["dt_proj.weight"].shape[1]
    states = (parts.shape[1] - rank) // 2
    dt = F.softplus(parts[:, :rank] @ state["dt_proj.weight"].T + state["dt_proj.bias"])
    A = -torch.exp(state["A_log"])
    h, rows = x.new_zeros(inner, states), []
    for t in range(len(x)):
        B, C = parts[t, rank : rank + states], parts[t, rank + states :]
        h = torch.exp(dt[t, :, None] * A) * h + (dt[t] * u[t])[:, None] * B
        rows.append(h @ C + state["D"] * u[t])
    return (torch.stack(rows) * F.silu(z)) @ state["out_proj.weight"].T


def below(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def scan_block(state: State, x: Tensor) -> Tensor:
    _, channels, height, width = x.shape
    rows = [(i, j) for i in range(height) for j in range(width)]
    columns = [(i, j) for j in range(width) for i in range(height)]
    orders = [rows, rows[::-1], columns, columns[::-1]]
    c = channels // 4
    outputs = []
    for image in x:
        normal = F.layer_norm(image.permute(1, 2, 0), (channels,), state["norm.weight"], state["norm.bias"])
        mixed = torch.empty_like(normal)
        for k, order in enumerate(orders):
            chunk = normal[..., k * c : (k + 1) * c]
            tokens = torch.stack([chunk[i, j] for i, j in order])
            for (i, j), value in zip(order, scanned(below(state, "mamba."), tokens), strict=True):
                mixed[i, j, k * c : (k + 1) * c] = value
        mixed = mixed + state["skip_scale"] * normal
        mixed = F.layer_norm(mixed, (channels,), state["norm.weight"], state["norm.bias"])
        outputs.append((mixed @ state["proj.weight"].T + state["proj.bias"]).permute(2, 0, 1))
    return x + torch.stack(outputs)


def local_block(state: State, x: Tensor) -> Tensor:
    weight = state["depthwise.weight"]
    y = F.conv2d(x, weight, state["depthwise.bias"], padding=weight.shape[-1] // 2, groups=x.shape[1])
    y = F.group_norm(y, 4, state["norm.weight"], state["norm.bias"])
    y = F.gelu(F.conv2d(y, state["wide.weight"], state["wide.bias"]))
    return x + F.conv2d(y, state["narrow.weight"], state["narrow.bias"])


def stage(state: State, x: Tensor) -> Tensor:
    for i in range(len({name.split(".")[0] for name in state})):
        block = below(state, f"{i}.")
        x = (scan_block if "skip_scale" in block else local_block)(block, x)
    return x


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def written_out(state: State, x: Tensor) -> Tensor:
    batch, c, height, width = x.shape
    x = (
        x.reshape(batch, c, height // 2, 2, width // 2, 2)
        .permute(0, 1, 3, 5, 2, 4)
        .reshape(batch, 4 * c, height // 2, -1)
    )
    weight = state["stem.weight"].reshape(-1, c, 3, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).reshape(-1, 4 * c, 3, 3)
    x = F.conv2d(x, weight, state["stem.bias"], padding=1)
    skips = []
    for level in (1, 2, 3):
        x = stage(below(state, f"encoder{level}."), x)
        skips.append(x)
        x = F.max_pool2d(F.conv2d(x, state[f"widen{level}.weight"], state[f"widen{level}.bias"]), 2)
    x = stage(below(state, "encoder4."), x)
    for level in (3, 2, 1):
        x = doubled(F.conv2d(x, state[f"narrow{level}.weight"], state[f"narrow{level}.bias"])) + skips[level - 1]
        x = stage(below(state, f"decoder{level}."), x)
    x = F.gelu(F.group_norm(x, 4, state["norm.weight"], state["norm.bias"]))
    return doubled(F.conv2d(x, state["head.weight"], state["head.bias"]))


@pytest.mark.parametrize("form", ["train", "reference", *EXPORT_FORMS])
def test_every_form_computes_what_is_written_out(form: str) -> None:
    torch.manual_seed(1)
    model = build("edge-unet").double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.rand(2, 3, SIZE, SIZE // 2, dtype=torch.float64)
    expected = written_out(model.state_dict(), x)
    set_form(model, form)  # type: ignore[arg-type]
    with torch.no_grad():
        found = model(x)
    assert found.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_size() -> None:
    model = build("edge-unet")
    assert sum(p.numel() for p in model.parameters()) == MODELS["edge-unet"].parameters == 49_083
    assert MODELS["edge-unet"].parameters <= 50_000


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = build("edge-unet")
    model(torch.rand(1, 3, SIZE, SIZE)).square().mean().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
