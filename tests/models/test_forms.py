"""Every form of every network computes the same; switching leaves no trace; what the forms offer to training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgemamba.models import Network, build, build_segmentation
from edgemamba.models.blocks import Conv3x3, GroupNorm4, LayerNorm, Upsample2
from edgemamba.registry import MODELS
from edgemamba.ssm import EXPORT_FORMS, Form, FormModule, set_form, use_form

SIZES = {"ul-vm-unet": (96, 64), "ul-vm-unet-v1": (48, 80), "ul-vm-unet-v4": (64, 96), "ul-vm-unet-v5": (64, 64)}


def disturbed(name: str) -> Network:
    """A network whose norms also have negative weights, and whose states matter."""
    torch.manual_seed(0)
    model = build(name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.6 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", sorted(SIZES))
def test_forms_agree(name: str) -> None:
    model = disturbed(name).double()
    x = torch.rand(2, 3, *SIZES[name], dtype=torch.float64)
    with torch.no_grad(), use_form(model, "reference"):
        expected = model(x)
    for form in ("train", *EXPORT_FORMS):
        with torch.no_grad(), use_form(model, form):
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-10)
    with torch.no_grad(), use_form(model, "off"):
        assert float((model(x) - expected).abs().max()) > 1e-4


@pytest.mark.parametrize("name", ["vim", "vim-2d-uni", "vim-2d-nano"])
def test_forms_of_classifiers_agree(name: str) -> None:
    model = disturbed(name).double()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad(), use_form(model, "reference"):
        expected = model(x)
    for form in ("train", *EXPORT_FORMS):
        with torch.no_grad(), use_form(model, form):
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-10)
    with torch.no_grad(), use_form(model, "off"):
        assert float((model(x) - expected).abs().max()) > 1e-4


def test_use_form_restores_every_part() -> None:
    model = build("ul-vm-unet")
    set_form(model.get_submodule("encoder4"), "reference")
    keys = model.state_dict().keys()
    with pytest.raises(RuntimeError), use_form(model, "litert"):
        assert model.state_dict().keys() == keys
        raise RuntimeError
    forms = {n: m.form for n, m in model.named_modules() if isinstance(m, FormModule)}
    assert {form for n, form in forms.items() if n.startswith("encoder4")} == {"reference"}
    assert {form for n, form in forms.items() if not n.startswith("encoder4")} == {"train"}
    assert not any(buffer.numel() for buffer in model.buffers())


def test_unknown_form() -> None:
    with pytest.raises(ValueError, match="forms are train, reference, onnx, litert, off"):
        set_form(build("ul-vm-unet"), "tensorrt")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(n for n, info in MODELS.items() if info.task == "segmentation"))
def test_decoder_maps_for_deep_supervision(name: str) -> None:
    model = build_segmentation(name).eval()
    with torch.no_grad():
        logits, maps = model.forward_features(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 1, 64, 64)
    assert [m.shape[1] for m in maps] == model.feature_channels
    sides = [m.shape[2] for m in maps]
    assert sides == sorted(sides) and sides[-1] >= 16


@pytest.mark.parametrize("form", EXPORT_FORMS)
@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("pool", [False, True])
def test_group_norm(form: Form, falling: bool, pool: bool) -> None:
    torch.manual_seed(1)
    norm = GroupNorm4(8).double()
    with torch.no_grad():
        norm.weight.copy_(torch.rand(8) + 0.1)
        norm.bias.copy_(torch.randn(8))
        if falling:
            norm.weight[::3] *= -1
        x = 3 * torch.randn(2, 8, 6, 10, dtype=torch.float64) + 5
        expected = norm(x, pool=pool)
        reference = nn.functional.group_norm(x, 4, norm.weight, norm.bias)
        torch.testing.assert_close(expected, nn.functional.max_pool2d(reference, 2) if pool else reference)
        set_form(norm, form)
        torch.testing.assert_close(norm(x, pool=pool), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("module", "shape"), [(LayerNorm(7), (3, 2, 7)), (Upsample2(), (2, 1, 5, 3))])
def test_layers_for_litert(module: FormModule, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    with torch.no_grad():
        expected = module(x)
        with use_form(module, "litert"):
            torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cin", [1, 3, 4, 5])
def test_convolution_over_pairs_of_columns(cin: int) -> None:
    torch.manual_seed(0)
    convolution = Conv3x3(cin, 6)
    x = torch.randn(2, cin, 5, 8)
    with torch.no_grad(), use_form(convolution, "litert"):
        expected = nn.functional.conv2d(x, convolution.weight, convolution.bias, padding=1)
        torch.testing.assert_close(convolution(x), expected, rtol=0, atol=1e-5)


def test_autocast_keeps_the_scan_in_float32() -> None:
    model = disturbed("ul-vm-unet")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    logits.float().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    assert float((logits.detach() - expected).abs().max()) < 0.1 * float(expected.std())


def test_gradients_reach_every_parameter_in_the_train_form() -> None:
    model = disturbed("ul-vm-unet-v4").train()
    model(torch.rand(1, 3, 64, 64)).square().mean().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())]
    assert not silent
