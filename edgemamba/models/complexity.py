"""How large and how expensive a network is, counted from its layers and not measured."""

from __future__ import annotations

import abc
import copy
import dataclasses
import math

import torch
from torch import Tensor, nn

from edgemamba.ssm import Mamba, ScanCall, SelectiveSSM, scan_calls, set_form


@dataclasses.dataclass(frozen=True)
class Complexity:
    """Cost of one image.

    Attributes:
        parameters: trainable values.
        macs_conv_matmul: multiply-accumulates of convolutions and matrix products.
        macs_scan: those of the selective scans, at six operations per state element (dt A, u B, a h + b, C h).
    """

    parameters: int
    macs_conv_matmul: int
    macs_scan: int


class FunctionalProducts(nn.Module, abc.ABC):
    """A module that multiplies matrices which are no layers of their own."""

    @abc.abstractmethod
    def product_macs(self, x: Tensor) -> int:
        """Multiply-accumulates of those products for the input ``x``."""


def count(model: nn.Module, size: tuple[int, int], in_channels: int = 3) -> Complexity:
    """Count ``model`` for one image of ``size`` (height, width)."""
    macs = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
        # A transposed convolution multiplies once per input element, the others once per output element.
        elements = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        per_element = math.prod(module.weight.shape[1:])
        macs += elements.numel() * per_element

    def add_functional(module: FunctionalProducts, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        nonlocal macs
        macs += module.product_macs(inputs[0])

    shadow = copy.deepcopy(model).to("meta").eval()
    set_form(shadow, "off")
    inside = {part for block in shadow.modules() if isinstance(block, Mamba) for part in block.modules()}
    for module in shadow.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and module not in inside:
            module.register_forward_hook(add)
        elif isinstance(module, FunctionalProducts):
            module.register_forward_hook(add_functional)
    with torch.no_grad():
        shadow(torch.zeros(1, in_channels, *size, device="meta"))
    calls = scan_calls(model, size, in_channels)
    return Complexity(
        parameters=sum(p.numel() for p in model.parameters()),
        macs_conv_matmul=macs + sum(_projection_macs(model, call) for call in calls),
        macs_scan=sum(3 * call.groups * call.length * call.d_inner * call.d_state for call in calls),
    )


def _projection_macs(model: nn.Module, call: ScanCall) -> int:
    """x_proj and dt_proj of one scan; in a Mamba block in_proj, conv1d and out_proj too."""
    per_token = 2 * call.dt_rank + 2 * call.d_state
    if not isinstance(model.get_submodule(call.name), SelectiveSSM):
        d_model = call.d_inner // 2
        per_token += 2 * d_model + 4 + d_model
    return call.groups * call.length * call.d_inner * per_token
