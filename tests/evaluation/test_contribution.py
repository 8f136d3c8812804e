"""The recurrence switched off, against the same net with its x_proj weights at zero."""

from __future__ import annotations

import json

import pytest
import torch

from edgemamba.console import Console
from edgemamba.data import open_dataset
from edgemamba.evaluation.compare import evaluate_pair
from edgemamba.evaluation.contribution import ssm_contribution
from edgemamba.models import build
from edgemamba.models.predictor import torch_predictor

QUIET = Console(quiet=True)
SIZE = (64, 64)


def lively(seed: int) -> torch.nn.Module:
    """UL-VM-UNet with weights large enough that the recurrence matters."""
    torch.manual_seed(seed)
    model = build("ul-vm-unet")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("x_proj.weight"):
                parameter.mul_(4)
    return model


def test_off_equals_a_net_without_input_and_output_matrices():
    dataset, indices = open_dataset("phantoms"), list(range(40, 52))
    model = lively(0)
    # A threshold in the middle of what an untrained net says, so that its masks have borders to move.
    middle = float(torch_predictor(model)(torch.zeros(1, 3, *SIZE).numpy()).mean())
    found = ssm_contribution(model, dataset, indices, SIZE, QUIET, middle, split="image")
    zeroed = lively(0)
    with torch.no_grad():
        for name, parameter in zeroed.named_parameters():
            if name.endswith("x_proj.weight"):
                parameter.zero_()
    pair = evaluate_pair(
        torch_predictor(model), torch_predictor(zeroed), dataset, indices, SIZE, QUIET, middle, split="image"
    )
    expected = pair.document()
    assert found["probability"]["mean_abs_difference"] == pytest.approx(
        expected["probability"]["mean_abs_difference"], rel=1e-3
    )
    assert found["probability"]["mean_abs_difference"] > 1e-6
    assert found["mask_agreement"]["equal_pixels"] == pytest.approx(
        expected["mask_agreement"]["equal_pixels"], abs=1e-4
    )
    assert found["dice"]["pooled"]["with"] == pytest.approx(expected["protocols"]["pooled"]["reference"])
    assert found["scans"] > 0
    assert found["slices"] == 12
    assert isinstance(found["dormant"], bool)
    json.dumps(found, allow_nan=False)


def test_the_net_is_left_as_it_was():
    model = lively(1)
    images = torch.rand(1, 3, *SIZE)
    before = model(images)
    ssm_contribution(model, open_dataset("phantoms"), [40], SIZE, QUIET, split="image")
    assert model.training
    assert torch.equal(model(images), before)


def test_a_net_without_a_scan_says_so():
    found = ssm_contribution(build("unet"), open_dataset("phantoms"), [40], SIZE, QUIET, split="image")
    assert found == {"scans": 0, "left_out": "the net has no state space"}
