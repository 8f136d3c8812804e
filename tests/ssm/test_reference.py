"""The sequential scan against the published numbers and its own definition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgemamba.ssm.reference import selective_scan

GOLDEN = json.loads((Path(__file__).parents[1] / "models" / "golden.json").read_text())["units"]["selective_scan"]


def tensor(key: str, shape: str | None = None) -> Tensor:
    values = torch.tensor(GOLDEN[key], dtype=torch.float64)
    return values.reshape(GOLDEN[shape]) if shape else values


@pytest.fixture
def inputs() -> dict[str, Any]:
    return {
        "u": tensor("u", "shape_u"),
        "delta": tensor("delta_raw", "shape_u"),
        "A": tensor("A", "shape_A"),
        "B": tensor("B", "shape_BC"),
        "C": tensor("C", "shape_BC"),
        "D": tensor("D"),
        "delta_bias": tensor("delta_bias"),
    }


def test_golden_values(inputs: dict[str, Any]) -> None:
    y, state = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    torch.testing.assert_close(y.flatten(), tensor("y_without_gate"), rtol=0, atol=1e-13)
    torch.testing.assert_close(state.flatten(), tensor("last_state"), rtol=0, atol=1e-13)
    gated = selective_scan(**inputs, z=tensor("z", "shape_u"), delta_softplus=True)
    torch.testing.assert_close(gated.flatten(), tensor("y"), rtol=0, atol=1e-13)


def test_softplus_and_bias_outside_are_the_same(inputs: dict[str, Any]) -> None:
    expected = selective_scan(**inputs, delta_softplus=True)
    bias = inputs.pop("delta_bias")
    inputs["delta"] = torch.nn.functional.softplus(inputs["delta"] + bias[:, None])
    torch.testing.assert_close(selective_scan(**inputs), expected)


def test_definition_for_one_channel_and_state() -> None:
    u, dt, B, C = torch.rand(4, 5, dtype=torch.float64)
    h, expected = 0.0, []
    for t in range(5):
        h = float(torch.exp(-2 * dt[t])) * h + float(dt[t] * B[t] * u[t])
        expected.append(float(C[t]) * h)
    rows = [v[None, None] for v in (u, dt, B, C)]
    y = selective_scan(rows[0], rows[1], torch.tensor([[-2.0]], dtype=torch.float64), rows[2], rows[3])
    torch.testing.assert_close(y.flatten(), torch.tensor(expected, dtype=torch.float64))
