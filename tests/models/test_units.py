"""Parts of the networks against the published implementations, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgemamba.models.blocks import AttentionBridge
from edgemamba.models.pyramid import PyramidPooling
from edgemamba.models.ul_vm_unet import PVMLayer
from edgemamba.models.unet import beside, beside_by_product
from edgemamba.ssm import Form, Mamba, set_form
from models.golden import check, fill, golden, values

UNITS = golden()["units"]
FORMS: tuple[Form, ...] = ("train", "reference", "onnx", "litert")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("unit", UNITS["mamba"], ids=lambda u: f"d{u['d_model']}")
def test_mamba(unit: dict, form: Form) -> None:
    block = Mamba(unit["d_model"]).double()
    assert (block.d_inner, block.dt_rank) == (unit["d_inner"], unit["dt_rank"])
    fill(block, unit)
    set_form(block, form)
    with torch.no_grad():
        y = block(values(3000, unit["batch"], unit["length"], unit["d_model"]))
    check(y, unit["summary"])
    if unit.get("y"):
        torch.testing.assert_close(y.flatten(), torch.tensor(unit["y"], dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_pvm_layer(form: Form) -> None:
    unit = UNITS["pvm_4way"]
    layer = PVMLayer(unit["cin"], unit["cout"], 4, pyramid=False).double()
    fill(layer, unit)
    set_form(layer, form)
    with torch.no_grad():
        check(layer(values(3001, 1, 24, 8, 8)), unit["summary"])


@pytest.mark.parametrize("form", FORMS)
def test_attention_bridge(form: Form) -> None:
    unit = UNITS["bridge"]
    channels, sizes = [8, 16, 24, 32, 48], [32, 16, 8, 4, 2]
    bridge = AttentionBridge(channels).double()
    fill(bridge, unit)
    set_form(bridge, form)
    skips = [values(3010 + j, 1, c, s, s) for j, (c, s) in enumerate(zip(channels, sizes, strict=True))]
    with torch.no_grad():
        for found, expected in zip(bridge(skips), unit["outputs"], strict=True):
            check(found, expected)


@pytest.mark.parametrize("form", FORMS)
def test_pyramid_pooling(form: Form) -> None:
    unit = UNITS["ppm"]
    pyramid = PyramidPooling(16).double()
    fill(pyramid, unit)
    set_form(pyramid, form)
    with torch.no_grad():
        check(pyramid(values(3020, 1, 16, 16, 16)), unit["summary"])


@pytest.mark.parametrize("size", [(2, 32), (5, 7), (32, 6)])
def test_pyramid_pooling_with_matrices_is_adaptive_pooling(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(8).double()
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = pyramid(x)
        set_form(pyramid, "onnx")
        torch.testing.assert_close(pyramid(x), expected, rtol=0, atol=1e-13)


def test_upsampling_as_a_product_is_the_transposed_convolution() -> None:
    """Values and all gradients of the concatenation, in float64."""
    torch.manual_seed(0)
    convolution = nn.ConvTranspose2d(6, 4, 2, stride=2).double()
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(2, 4, 6, 10, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(2, 8, 6, 10, dtype=torch.float64)
    wanted = (x, skip, *convolution.parameters())
    found = []
    for join in (beside, beside_by_product):
        y = join(convolution, x, skip)
        found.append((y, *torch.autograd.grad((y * weight).sum(), wanted)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert found[1][0].is_contiguous(memory_format=torch.channels_last)
