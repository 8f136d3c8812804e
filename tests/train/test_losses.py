"""Losses against the golden numbers of the published formulas, and against hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgemamba.train.losses import LOSSES, Supervision, batch_dice, image_dice
from train.hashing import signed, uniform

SHAPE = (2, 1, 32, 32)


@pytest.fixture
def golden() -> tuple[Tensor, Tensor]:
    count = int(np.prod(SHAPE))
    logits = torch.from_numpy(3 * signed(3030, count)).reshape(SHAPE)
    target = torch.from_numpy((uniform(1000001, count) < 0.3).astype(np.float64)).reshape(SHAPE)
    return logits, target


def test_hash_self_test() -> None:
    assert int(uniform(0, 2)[1] * 2**32) == 3595746169
    assert int(uniform(7, 12346)[12345] * 2**32) == 1473860149


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (LOSSES["bce"], 1.00364528796789),
        (image_dice, 0.605387131868683),
        (batch_dice, 0.605754571133918),
        (LOSSES["bce-dice"], 1.60903241983657),
        (LOSSES["batch-dice"], 0.572121996275478),
        (LOSSES["bce+batch-dice"], 1.00364528796789 + 0.605754571133918),
    ],
)
def test_golden_values(loss: object, expected: float, golden: tuple[Tensor, Tensor]) -> None:
    assert callable(loss)
    assert float(loss(*golden)) == pytest.approx(expected, abs=1e-12)


def test_an_empty_image_costs_the_batch_only_its_false_alarms() -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[0, 0, :4] = 1
    logits = torch.where(target > 0, 30.0, -30.0)
    assert float(batch_dice(logits, target)) == pytest.approx(0, abs=1e-6)
    logits[1] = -2.0
    empty = 64 * torch.sigmoid(torch.tensor(-2.0)).item()
    assert float(batch_dice(logits, target)) == pytest.approx(1 - 65 / (65 + empty), abs=1e-6)
    assert float(image_dice(logits, target)) == pytest.approx((1 - 1 / (empty + 1)) / 2, abs=1e-6)


def test_supervision_halves_weights_and_averages_the_mask() -> None:
    heads = Supervision([6, 4], 0.5)
    torch.manual_seed(0)
    maps = [torch.randn(2, 6, 4, 4), torch.randn(2, 4, 8, 8)]
    target = (torch.rand(2, 1, 16, 16) < 0.4).float()
    expected = 0.0
    for head, features, weight, cell in zip(heads.heads, maps, (0.25, 0.5), (4, 2), strict=True):
        side = 16 // cell
        share = target.reshape(2, 1, side, cell, side, cell).mean((3, 5))
        expected += weight * LOSSES["bce+batch-dice"](head(features), share).item()
    assert heads(maps, target, LOSSES["bce+batch-dice"]).item() == pytest.approx(expected, rel=1e-6)
