"""What a network costs, against PyTorch's own operation counter and the published tables."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgemamba.errors import UsageError
from edgemamba.models import build, count
from edgemamba.registry import MODELS
from edgemamba.ssm import ScanCall, scan_calls, set_form

# 2 x multiply-accumulates at 256x256 (classifiers: 32x32) in 1e9: convolutions, products and the contraction C h of
# the scan.
GFLOP = {
    "ul-vm-unet": 0.1353,
    "ul-vm-unet-v1": 0.5261,
    "ul-vm-unet-v2": 0.1328,
    "ul-vm-unet-v3": 0.4679,
    "ul-vm-unet-v4": 0.6238,
    "ul-vm-unet-v5": 0.6151,
    "ul-vm-unet-v6": 0.6164,
    "unet": 24.14,
    "u-mamba-bot": 27.56,
    "u-mamba-bot-pp": 27.56,
    "resnet18-seg": 5.55,
    "resnet50-seg": 14.99,
    "ultralbm-unet": 0.1225,
    "ultralbm-unet-token": 0.1225,
    "ultralbm-unet-t": 0.0390,
    "segformer": 9.90,
    "edge-unet": 0.3816,
    "vim": 0.2290,
    "vim-2d": 0.2258,
    "vim-2d-uni": 0.2016,
    "vim-2d-nano": 0.0210,
    "vim-2d-tiny": 0.0620,
    "vim-2d-base": 0.8462,
    "resnet9": 0.7586,
    "resnet50": 2.5960,
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_published_operations(name: str) -> None:
    cost = count(build(name), MODELS[name].size)
    assert cost.parameters == MODELS[name].parameters
    assert 2e-9 * (cost.macs_conv_matmul + cost.macs_scan / 3) == pytest.approx(GFLOP[name], rel=4e-4, abs=1e-4)


@pytest.mark.parametrize("name", ["vim", "vim-2d-nano", "resnet9"])
def test_counter_of_pytorch_on_classifiers(name: str) -> None:
    model, size = build(name).eval(), MODELS[name].size
    set_form(model, "reference")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, *size))
    assert counter.get_total_flops() == 2 * count(model, size).macs_conv_matmul


@pytest.mark.parametrize("name", ["ul-vm-unet-v1", "ul-vm-unet-v5", "unet"])
def test_counter_of_pytorch(name: str) -> None:
    model, size = build(name).eval(), (64, 96)
    set_form(model, "reference")
    # Two things that it counts are no part of the network's definition: the bridge's means, written as products,
    # and the three steps that the causal convolution computes after the last token and drops.
    extra = 3 * 4 * sum(call.d_inner * call.groups for call in scan_calls(model, size))
    for key, module in model.named_modules():
        if key == "scab":
            module.register_forward_pre_hook(lambda _m, inputs: skips.extend(inputs[0]))
    skips: list[torch.Tensor] = []
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, *size))
    extra += sum(skip.numel() for skip in skips)
    assert counter.get_total_flops() == 2 * (count(model, size).macs_conv_matmul + extra)


def test_scan_calls_at_full_size() -> None:
    def calls(name: str) -> list[tuple[int, int, int, int]]:
        found = scan_calls(build(name), (256, 256))
        assert all(call.d_state == 16 for call in found)
        return [(call.length, call.d_inner, call.dt_rank, call.groups) for call in found]

    assert scan_calls(build("ul-vm-unet"), (256, 256))[0] == ScanCall("encoder4.0.mamba", 1024, 12, 16, 1, 4)
    base = [(1024, 12), (256, 16), (64, 24), (64, 32), (64, 24), (256, 16)]
    assert calls("ul-vm-unet") == [(length, d_inner, 1, 4) for length, d_inner in base]
    assert calls("ul-vm-unet-v2") == [(length, d_inner // 2, 1, 8) for length, d_inner in base]
    assert calls("ul-vm-unet-v1") == [
        (4096, 16, 1, 4),
        (1024, 32, 1, 4),
        (256, 64, 2, 4),
        (256, 128, 4, 4),
        (256, 64, 2, 4),
        (1024, 32, 1, 4),
    ]
    assert calls("unet") == []


def test_scan_calls_of_a_classifier() -> None:
    calls = scan_calls(build("vim-2d-nano"), (32, 32))
    assert len(calls) == 8
    assert calls[1] == ScanCall("layers.0.mixer.ssm_b", 64, 128, 16, 4, 1)
    assert {call.length for call in scan_calls(build("vim"), (32, 32))} == {65}


def test_counting_leaves_the_network_as_it_was() -> None:
    model = build("ul-vm-unet")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    count(model, (64, 64))
    assert model.training
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="ul-vm-unett") as error:
        build("ul-vm-unett")
    assert "ul-vm-unet" in error.value.hint
