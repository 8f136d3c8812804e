"""Both initialisations, statistically: the published one, and Mamba's own inside the Mamba blocks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models import SegmentationModel, build
from edgemamba.models.blocks import GroupNorm4
from edgemamba.ssm import Mamba


@pytest.fixture(scope="module")
def source() -> SegmentationModel:
    torch.manual_seed(0)
    return build("ul-vm-unet-v5", init="source")


@pytest.fixture(scope="module")
def mamba() -> SegmentationModel:
    torch.manual_seed(0)
    return build("ul-vm-unet-v5", init="mamba")


def blocks(model: nn.Module) -> list[Mamba]:
    return [module for module in model.modules() if isinstance(module, Mamba)]


def joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


@pytest.mark.parametrize("init", ["source", "mamba"])
def test_state_matrix_and_skips(init: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(init)
    for block in blocks(model):
        expected = torch.log(torch.arange(1.0, 17.0)).expand_as(block.A_log)
        torch.testing.assert_close(block.A_log.detach(), expected, rtol=0, atol=1e-6)
        assert bool((block.D == 1).all())
    for name, parameter in model.named_parameters():
        if name.endswith("skip_scale"):
            assert float(parameter.detach()) == 1.0
    for norm in model.modules():
        if isinstance(norm, (GroupNorm4, nn.LayerNorm)):
            assert bool((norm.weight == 1).all()) and bool((norm.bias == 0).all())


def test_mamba_starts_with_steps_from_a_thousandth_to_a_tenth(mamba: SegmentationModel) -> None:
    log_dt = torch.log(F.softplus(joined([block.dt_proj.bias for block in blocks(mamba)])))
    low, high = math.log(1e-3), math.log(1e-1)
    assert float(log_dt.min()) >= low - 1e-4 and float(log_dt.max()) <= high + 1e-4
    # Log-uniform: mean and spread of a uniform distribution.
    assert float(log_dt.mean()) == pytest.approx((low + high) / 2, abs=0.3)
    assert float(log_dt.std()) == pytest.approx((high - low) / math.sqrt(12), abs=0.15)
    for block in blocks(mamba):
        bound = block.dt_rank**-0.5
        weight = block.dt_proj.weight.detach()
        assert bound * 0.8 < float(weight.abs().max()) <= bound
        bound = block.d_model**-0.5
        assert bound * 0.9 < float(block.in_proj.weight.detach().abs().max()) <= bound
        assert 0.4 < float(block.conv1d.weight.detach().abs().max()) <= 0.5


def test_published_initialisation_resets_every_linear_layer(source: SegmentationModel) -> None:
    for module in source.modules():
        if isinstance(module, nn.Linear):
            assert float(module.weight.detach().abs().max()) < 0.12
            assert module.bias is None or bool((module.bias == 0).all())
    weights = joined([m.weight for m in source.modules() if isinstance(m, nn.Linear)])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.01)
    dt = F.softplus(joined([block.dt_proj.bias for block in blocks(source)]))
    torch.testing.assert_close(dt, torch.full_like(dt, math.log(2)))


def test_published_initialisation_of_convolutions(source: SegmentationModel) -> None:
    for block in blocks(source):
        expected = math.sqrt(2 / (4 * block.d_inner))
        assert float(block.conv1d.weight.detach().std()) == pytest.approx(expected, rel=0.3)
        assert block.conv1d.bias is not None
        assert 0.1 < float(block.conv1d.bias.detach().abs().max()) <= 0.5
    for name, module in source.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None and bool((module.bias == 0).all()), name
    convolution = source.get_submodule("encoder3.0")
    assert float(convolution.weight.detach().std()) == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.05)
    heads = joined([build("ul-vm-unet", init="source").get_submodule("final").weight for _ in range(60)])
    assert float(heads.std()) == pytest.approx(math.sqrt(2), rel=0.15)
    taps = joined(
        [build("ul-vm-unet", init="source").get_submodule("scab.catt.get_all_att").weight for _ in range(100)]
    )
    assert float(taps.std()) == pytest.approx(math.sqrt(2 / 3), rel=0.15)


def test_outside_the_mamba_blocks_both_are_the_published_one(mamba: SegmentationModel) -> None:
    assert float(mamba.get_parameter("encoder6.0.proj.weight").detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(mamba.get_parameter("encoder3.0.weight").detach().std()) == pytest.approx(
        math.sqrt(2 / (9 * 64)), rel=0.05
    )


def test_the_seed_decides() -> None:
    torch.manual_seed(3)
    first = build("ul-vm-unet").state_dict()
    torch.manual_seed(3)
    second = build("ul-vm-unet").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
