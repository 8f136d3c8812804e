"""The deterministic fill of the golden vectors: weights, images and targets that depend on no random generator."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from train.hashing import signed, uniform

IMAGE, TARGET, WEIGHTED_SUM, BATCH_NORM = 1_000_000, 1_000_001, 1_000_002, 100_000


@functools.cache
def golden() -> dict[str, Any]:
    """The golden vectors: ``models`` by name and ``units``."""
    document: dict[str, Any] = json.loads(Path(__file__).with_name("golden.json").read_text())
    return document


def values(stream: int, *shape: int) -> Tensor:
    """V(stream, .) in [-1, 1), float64, row-major."""
    return torch.from_numpy(signed(stream, int(np.prod(shape)))).reshape(shape)


def fill(module: nn.Module, entry: dict[str, Any]) -> None:
    """Give every parameter and statistic of ``module`` its golden value, by name; names and shapes must match."""
    parameters = dict(module.named_parameters())
    assert {row[1]: row[3] for row in entry["tensors"]} == {n: list(p.shape) for n, p in parameters.items()}
    for row in entry["tensors"]:
        stream, name, role, shape = row[:4]
        parameters[name].data.copy_(_parameter(stream, role, shape, row[4] if len(row) > 4 else 0.0))
    buffers = dict(module.named_buffers())
    for j, name in enumerate(entry.get("batchnorms", [])):
        mean, variance = buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]
        mean.copy_(0.1 * values(BATCH_NORM + 2 * j, *mean.shape))
        variance.copy_(1 + 0.5 * values(BATCH_NORM + 2 * j + 1, *variance.shape))


def _parameter(stream: int, role: str, shape: list[int], amplitude: float) -> Tensor:
    if role in ("W", "B"):
        return amplitude * values(stream, *shape)
    if role == "G":
        return 1 + amplitude * values(stream, *shape)
    count = int(np.prod(shape))
    if role == "A":
        number = torch.arange(count).reshape(shape) % 16
        return torch.log(1.0 + number.double()) + amplitude * values(stream, *shape)
    assert role == "T"
    dt = 0.001 * 100 ** uniform(stream, count)
    return torch.from_numpy(dt + np.log(-np.expm1(-dt))).reshape(shape)


def image(batch: int, size: int) -> Tensor:
    """Waves and noise, (batch, 3, size, size), float64."""
    b = torch.arange(1, batch + 1, dtype=torch.float64)[:, None, None, None]
    c = torch.arange(1, 4, dtype=torch.float64)[None, :, None, None]
    y = torch.arange(size, dtype=torch.float64)[None, None, :, None]
    x = torch.arange(size, dtype=torch.float64)[None, None, None, :]
    waves = 0.5 + 0.3 * torch.sin(0.05 * c * x + 0.03 * b * y)
    return waves + 0.2 * values(IMAGE, batch, 3, size, size)


def target(batch: int, size: int) -> Tensor:
    """Zeros and ones, (batch, 1, size, size), float64."""
    return torch.from_numpy((uniform(TARGET, batch * size * size) < 0.3) * 1.0).reshape(batch, 1, size, size)


def check(found: Tensor, summary: dict[str, Any], tolerance: float = 1e-9) -> None:
    """Compare a tensor with its summary: shape, mean, spread, listed entries, extremes, weighted sum."""
    assert list(found.shape) == summary["shape"]
    flat = found.detach().double().flatten()
    limit = tolerance * max(1.0, summary["std"])
    assert abs(float(flat.mean()) - summary["mean"]) <= limit
    assert abs(float(flat.std(unbiased=False)) - summary["std"]) <= limit
    for index, value in zip(summary["idx"], summary["val"], strict=True):
        assert abs(float(flat[index]) - value) <= limit
    if "wsum" in summary:
        assert abs(float(flat.min()) - summary["min"]) <= limit
        assert abs(float(flat.max()) - summary["max"]) <= limit
        weighted = float((flat * values(WEIGHTED_SUM, len(flat))).sum())
        assert abs(weighted - summary["wsum"]) <= limit * len(flat) ** 0.5 * 10
