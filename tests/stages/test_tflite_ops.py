"""Every lowering against torch, on LiteRT; and what the graph must look like where it matters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tflite_run import names, operators, run
from torch import Tensor, nn

from edgemamba.errors import Unsupported
from edgemamba.stages.to_tflite import convert

IMAGE = (1, 6, 13, 9)
TOKENS = (2, 10, 6)


class Call(nn.Module):
    """A function of one tensor, with modules that hold its weights."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


W = {
    shape: torch.randn(shape, generator=torch.Generator().manual_seed(5))
    for shape in [(1, 2, 13, 9), (6, 1, 1), (5, 13), (9, 4), (7, 6), (7, 20), (6, 3)]
}


IMAGES: dict[str, nn.Module] = {
    "conv same": nn.Conv2d(6, 5, 3, padding=1),
    "conv valid": nn.Conv2d(6, 5, (3, 1)),
    "conv wide padding": nn.Conv2d(6, 5, 3, padding=2, bias=False),
    "conv stride": nn.Conv2d(6, 5, 3, stride=2, padding=1),
    "conv dilated": nn.Conv2d(6, 5, 3, padding=2, dilation=2),
    "conv rows": nn.Conv2d(6, 7, (1, 7), padding=(0, 9), dilation=(1, 3)),
    "conv depthwise": nn.Conv2d(6, 6, 3, padding=1, groups=6),
    "conv depthwise twice": nn.Conv2d(6, 12, 3, groups=6),
    "conv transposed": nn.ConvTranspose2d(6, 4, 2, stride=2),
    "conv transposed without bias": nn.ConvTranspose2d(6, 4, 3, stride=2, bias=False),
    "conv transposed with padding": nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1),
    "average pool": nn.AvgPool2d(2),
    "softmax": Call(lambda x: torch.softmax(3 * x, 1) + torch.softmax(x, -1)),
    "flip": Call(lambda x: x.flip(1) + 2 * x.flip((2, -1))),
    "leaky relu": Call(lambda x: F.leaky_relu(x - 0.5, 0.01)),
    "batch norm": nn.BatchNorm2d(6),
    "batch norm without weights": nn.BatchNorm2d(6, affine=False),
    "conv, batch norm without weights": nn.Sequential(nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5, affine=False)),
    "conv, batch norm, relu": nn.Sequential(nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True)),
    "conv without bias, batch norm": nn.Sequential(nn.Conv2d(6, 5, 1, bias=False), nn.BatchNorm2d(5)),
    "conv used twice": Call(lambda x, c: (y := c(x)) + F.relu(y), nn.Conv2d(6, 6, 1)),
    "max pool": nn.MaxPool2d(2),
    "max pool with stride": nn.MaxPool2d((3, 2), (2, 1)),
    "resize aligned": nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "resize": nn.Upsample((20, 31), mode="bilinear"),
    "statistics": Call(lambda x: torch.cat([x.mean(1, keepdim=True), x.amax((1,), True), x.sum(1, True)], 1)),
    "mean of pixels": Call(lambda x: (x - x.mean((2, 3), keepdim=True)) * x.mean((2, 3))[:, :, None, None]),
    "skips": Call(lambda x, c: torch.cat([c(x), x, W[1, 2, 13, 9]], 1), nn.Conv2d(6, 3, 1)),
    "padding": Call(lambda x: F.pad(x, (1, -2, 0, 3))),
    "slices": Call(lambda x: x[:, 1:5, 2:, :-1] + x[:, -5:-1, 2:, 1:]),
    "one plane": Call(lambda x: x[:, 2] * x[:, -1]),
    "split": Call(lambda x: torch.cat(x.split([1, 2, 3], 1)[::-1], 1) + torch.cat(x.chunk(3, 1), 1)),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "logarithm": Call(lambda x: torch.relu(x) + torch.log(1 + torch.exp(-torch.abs(x)))),
    "inverse root": Call(lambda x: torch.rsqrt(x * x + 1e-5) - 2.0),
    "addcmul": Call(lambda x: torch.addcmul(x, W[6, 1, 1], x.sigmoid())),
    "image to tokens to image": Call(
        lambda x, f: f(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(1, 4, 13, 9), nn.Linear(6, 4)
    ),
    "constant matrices": Call(lambda x: torch.matmul(W[5, 13], torch.matmul(x, W[9, 4]))),
}
SEQUENCES: dict[str, nn.Module] = {
    "linear": nn.Linear(6, 5),
    "linear without bias": nn.Linear(6, 5, bias=False),
    "matrix from the left": Call(lambda x: torch.matmul(W[7, 6], x.reshape(20, 6).t())),
    "matrix from the left of rows": Call(lambda x: torch.matmul(W[7, 20], x.reshape(20, 6))),
    "matrix from the right": Call(lambda x: torch.matmul(x.reshape(20, 6), W[6, 3])),
    "product of both": Call(lambda x: torch.matmul(x, x.transpose(1, 2))),
    "copy in torch's order": Call(lambda x: x.permute(2, 0, 1).contiguous().reshape(12, 10) * 2),
    "conv1d": Call(lambda x, c: c(x.transpose(1, 2)), nn.Conv1d(6, 4, 3, padding=1)),
    "conv1d depthwise": nn.Conv1d(10, 10, 4, padding=3, groups=10),
    "negation": Call(lambda x: -x),
}


@pytest.mark.parametrize("name", [*IMAGES, *SEQUENCES])
def test_computes_what_torch_computes(name: str) -> None:
    module, shape = (IMAGES[name], IMAGE) if name in IMAGES else (SEQUENCES[name], TOKENS)
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            if part.affine:
                nn.init.normal_(part.weight)
    module.eval()
    x = torch.randn(shape)
    with torch.no_grad():
        expected = module(x.clone()).numpy()
    found = run(convert(module, shape), x.numpy())
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


def test_normalisation_and_relu_go_into_the_convolution() -> None:
    model = convert(IMAGES["conv, batch norm, relu"].eval(), IMAGE)
    assert names(model) == ["TRANSPOSE", "CONV_2D", "TRANSPOSE"]


def test_images_are_turned_once_each_way() -> None:
    net = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3, stride=2))
    assert names(convert(net, (1, 6, 16, 16))).count("TRANSPOSE") == 2


def test_one_channel_needs_no_transposition() -> None:
    model = convert(nn.Conv2d(1, 1, 3, padding=1), (1, 1, 8, 8))
    assert names(model) == ["RESHAPE", "CONV_2D", "RESHAPE"]


def test_tokens_of_an_image_are_not_moved() -> None:
    conv, linear = nn.Conv2d(6, 8, 1), nn.Linear(8, 8)
    net = Call(lambda x, c, f: c(x).flatten(2).transpose(1, 2) @ f.weight, conv, linear)
    assert names(convert(net, IMAGE)) == ["TRANSPOSE", "CONV_2D", "RESHAPE", "FULLY_CONNECTED"]


def test_what_depends_on_weights_alone_is_computed_now() -> None:
    class Decay(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.A_log = nn.Parameter(torch.randn(6))

        def forward(self, x: Tensor) -> Tensor:
            return x * -torch.exp(self.A_log)

    assert names(convert(Decay(), TOKENS)) == ["MUL"]


def test_nothing_unused_is_left() -> None:
    net = Call(lambda x, c: (c(x), x.exp())[0], nn.Conv2d(6, 2, 1))
    model = convert(net, IMAGE)
    assert "EXP" not in names(model)
    graph = model.subgraphs[0]
    used = {i for op in graph.operators for i in [*op.inputs, *op.outputs]} | {*graph.inputs, *graph.outputs}
    assert used == set(range(len(graph.tensors)))
    assert {tensor.buffer for tensor in graph.tensors} | {0} == set(range(len(model.buffers)))
    assert {op.opcodeIndex for op in graph.operators} == set(range(len(model.operatorCodes)))


def test_equal_constants_are_one_tensor() -> None:
    model = convert(Call(lambda x: (x * 3.0 + x.exp() * 3.0)[:, 1:] + (x * 2.0)[:, 1:]), TOKENS)
    assert sum(buffer.data is not None for buffer in model.buffers) == 4  # 3.0, 2.0, begin and size of the slices
    assert len(operators(model)) == 8


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x, 1)[0]


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.ReLU(), Odd()), r"aten\.sort\.default in 1 \(Odd\) has no TFLite lowering"),
        (nn.ConvTranspose2d(6, 6, 3, 2, output_padding=1), r"more output padding than padding.*in the network"),
        (nn.MaxPool2d(2, dilation=2), "a dilated pooling"),
        (nn.AvgPool2d(2, ceil_mode=True), "an average pooling with ceil_mode"),
        (Call(lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")), "padding with reflect"),
        (Branching(), "torch.export cannot follow the network"),
    ],
)
def test_what_cannot_be_lowered_is_named(module: nn.Module, message: str) -> None:
    with pytest.raises(Unsupported, match=message) as caught:
        convert(module.eval(), IMAGE)
    assert caught.value.hint
    assert "\n" not in caught.value.message
