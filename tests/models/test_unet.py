"""U-Net's other forms of the same function, for compiled training on a GPU."""

import torch
from torch import nn

from edgemamba.models.unet import by_product


def test_a_transposed_convolution_is_a_product_and_a_shuffle() -> None:
    torch.manual_seed(0)
    convolution = nn.ConvTranspose2d(6, 3, 2, stride=2).double()
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    wanted = [x, *convolution.parameters()]
    expected, found = convolution(x), by_product(convolution, x)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, wanted, weights)
    torch.testing.assert_close(torch.autograd.grad(found, wanted, weights), gradients)
