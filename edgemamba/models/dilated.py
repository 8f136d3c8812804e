"""A dilated convolution whose data gradient is a convolution too."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def dilated_conv2d(x: Tensor, weight: Tensor, bias: Tensor, padding: int, dilation: int) -> Tensor:
    """``F.conv2d`` with stride 1 and output of the input's size, (B, cin, H, W) -> (B, cout, H, W).

    Under autocast its operands are cast here: a function with a backward pass of its own saves them as it gets them.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(kind), weight.to(kind), bias.to(kind)
    found: Tensor = DilatedConv2d.apply(x, weight, bias, padding, dilation)
    return found


class DilatedConv2d(torch.autograd.Function):
    """``dilated_conv2d`` for operands of one type.

    For one or two channels cuDNN takes the data gradient of a dilated convolution as a strided matrix product: two
    thirds of a training step of UL-VM-UNet on an H100. It is itself a convolution of the gradient with the turned
    kernel, which cuDNN does well.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.geometry = padding, dilation
        return F.conv2d(x, weight, bias, padding=padding, dilation=dilation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        padding, dilation = ctx.geometry
        turned = weight.transpose(0, 1).flip(2, 3)
        grad_x = F.conv2d(grads[0], turned, padding=padding, dilation=dilation)
        _, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grads[0],
            x,
            weight,
            bias.shape,
            [1, 1],
            [padding, padding],
            [dilation, dilation],
            False,
            [0, 0],
            1,
            [False, True, True],
        )
        return grad_x, grad_weight, grad_bias, None, None
