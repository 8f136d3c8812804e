"""Every network against the published implementations: parameters, outputs, inner tensors, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from train.hashing import uniform

from edgemamba.models import SegmentationModel, build, build_segmentation
from edgemamba.models.segformer import SegFormer
from edgemamba.registry import MODELS
from edgemamba.ssm import Form, set_form
from models.golden import check, fill, golden, image, target

# The token flip is a variant of ours: test_ultralbm holds it against its published sibling.
# Classifiers have their own document (test_golden_classification), Edge-UNet has no published output.
NAMES = sorted(
    {name for name, info in MODELS.items() if info.task == "segmentation"} - {"ultralbm-unet-token", "edge-unet"}
)


def filled(name: str) -> SegmentationModel:
    model = build_segmentation(name).double().eval()
    fill(model, golden()["models"][name])
    return model


def published_output(name: str, logits: Tensor) -> Tensor:
    """The published UL-VM-UNet and UltraLBM-UNet end in a sigmoid, here every network gives logits."""
    return torch.sigmoid(logits) if name.startswith(("ul-vm-unet", "ultralbm")) else logits


def published_logits(model: SegmentationModel, x: Tensor) -> Tensor:
    """The published SegFormer stops at a quarter of the sides."""
    return model.forward_quarter(x)[0] if isinstance(model, SegFormer) else model(x)


def case(name: str, size: int) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in golden()["models"][name]["cases"] if c["size"] == size)
    return found


def smallest_case(name: str) -> dict[str, Any]:
    """At 64x64; the published ResNets always resize to 256x256 and have only that."""
    found: dict[str, Any] = min(golden()["models"][name]["cases"], key=lambda c: c["size"])
    return found


def test_the_fill_itself() -> None:
    assert [int(uniform(s, i + 1)[i] * 2**32) for s, i in ((0, 0), (1, 0), (7, 12345))] == [
        1179680230,
        4014678857,
        1473860149,
    ]
    x = image(2, 64)
    assert float(x[0, 0, 0, 0]) == pytest.approx(0.598224662058055, abs=1e-14)
    assert float(x[0, 2, 63, 63]) == pytest.approx(0.253800769391497, abs=1e-14)
    assert float(x.sum()) == pytest.approx(12648.1384482346, abs=1e-9)
    assert int(target(2, 64).sum()) == 2408


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_every_module(name: str) -> None:
    model = build(name)
    expected = golden()["models"][name]
    assert sum(p.numel() for p in model.parameters()) == expected["params"] == MODELS[name].parameters
    modules = {key: sum(p.numel() for p in part.parameters()) for key, part in model.named_children()}
    modules |= {key: parameter.numel() for key, parameter in model.named_parameters(recurse=False)}
    assert {key: n for key, n in modules.items() if n} == expected["modules"]
    assert [n for n, _ in model.named_parameters()] == [row[1] for row in expected["tensors"]]
    statistics = {".".join((n, leaf)) for n in expected["batchnorms"] for leaf in ("running_mean", "running_var")}
    keys = {row[1] for row in expected["tensors"]} | statistics
    assert {k for k in model.state_dict() if not k.endswith("num_batches_tracked")} == keys


@pytest.mark.parametrize("form", ["train", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_inner_tensors_in_float64(name: str, form: Form) -> None:
    model = filled(name)
    set_form(model, form)
    expected = smallest_case(name)
    found: dict[str, Tensor] = {}
    for key, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, output, key=key: found.__setitem__(key, output))
    with torch.no_grad():
        logits = published_logits(model, image(expected["batch"], expected["size"]))
    check(published_output(name, logits), expected["output"])
    for probe in expected["probes"]:
        key, _, skip = probe["name"].partition(".out")
        check(found[key][int(skip) - 1] if skip else found[key], probe)


@pytest.mark.parametrize("form", ["train", "onnx", "litert"])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_in_float32(name: str, form: Form) -> None:
    model = filled(name).float()
    set_form(model, form)
    expected = smallest_case(name)
    with torch.no_grad():
        logits = published_logits(model, image(expected["batch"], expected["size"]).float())
    output = published_output(name, logits).double().flatten()
    limit = 10 * expected["fp32_max_abs_diff"]
    for index, value in zip(expected["output"]["idx"], expected["output"]["val"], strict=True):
        assert abs(float(output[index]) - value) <= limit


@pytest.mark.parametrize("name", ["ul-vm-unet", "ul-vm-unet-v3", "ul-vm-unet-v4"])
def test_full_size(name: str) -> None:
    with torch.no_grad():
        check(published_output(name, filled(name)(image(1, 256))), case(name, 256)["output"])


@pytest.mark.parametrize("name", ["ul-vm-unet", "ul-vm-unet-v2"])
def test_gradients(name: str) -> None:
    model = filled(name)
    expected = golden()["units"][f"grad_{name}"]
    probability, mask = torch.sigmoid(model(image(2, 64))), target(2, 64)
    overlap = 2 * (probability * mask).sum((1, 2, 3)) + 1
    dice = overlap / (probability.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
    loss = F.binary_cross_entropy(probability, mask) + 1 - dice.mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected["value"], abs=1e-9)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    total = torch.sqrt(sum((g**2).sum() for g in gradients.values()))
    assert float(total) == pytest.approx(expected["grad_l2_all"], abs=1e-9)
    for _, key, sum_, norm in expected["per_tensor"]:
        assert float(gradients[key].sum()) == pytest.approx(sum_, abs=1e-9)
        assert float(gradients[key].norm()) == pytest.approx(norm, abs=1e-9)


def test_probabilities_are_what_is_exported() -> None:
    from edgemamba.models import Exported

    model = filled("ul-vm-unet")
    x = image(1, 64)
    with torch.no_grad():
        torch.testing.assert_close(Exported(model, "segmentation")(x), torch.sigmoid(model(x)), rtol=0, atol=0)


def test_dilated_convolution_has_the_gradients_of_torch() -> None:
    from edgemamba.models.dilated import dilated_conv2d

    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 2, 20, 23), (1, 2, 7, 7), (1,))
    inputs = [torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    expected = torch.nn.functional.conv2d(*inputs, padding=9, dilation=3)
    found = dilated_conv2d(inputs[0], inputs[1], inputs[2], 9, 3)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, weights), torch.autograd.grad(expected, inputs, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_dilated_convolution_trains_under_autocast() -> None:
    from edgemamba.models.dilated import dilated_conv2d

    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(*s, generator=generator).requires_grad_() for s in ((2, 2, 20, 23), (1, 2, 7, 7), (1,))]
    with torch.autocast("cpu", torch.bfloat16):
        found = dilated_conv2d(inputs[0], inputs[1], inputs[2], 9, 3)
    assert found.dtype == torch.bfloat16
    exact = torch.nn.functional.conv2d(*inputs, padding=9, dilation=3)
    for ours, theirs in zip(
        torch.autograd.grad(found.sum(), inputs), torch.autograd.grad(exact.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02 * float(theirs.abs().max()))
