"""Operators that networks of other projects use: each on ONNX Runtime and on LiteRT against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from onnx_run import run_graph, to_graph
from tflite_run import names, run
from torch import Tensor, nn

from edgemamba.errors import InputError, Unsupported
from edgemamba.stages.to_tflite import convert

IMAGE = (1, 8, 12, 10)
TOKENS = (2, 16, 6)


class Call(nn.Module):
    """A function of one tensor, with modules that hold its weights."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


W = {
    shape: torch.randn(shape, generator=torch.Generator().manual_seed(7))
    for shape in [(1, 1, 6), (1, 8, 7, 7), (16, 16), (2, 5, 4), (2, 6, 4), (4, 1, 1), (5, 16), (5, 6), (6,), (8, 1, 1)]
}


class CrossScan(torch.autograd.Function):
    """Four directions, written in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        b, c, h, w = x.shape
        ctx.shape = (b, c, h, w)
        xs = x.new_empty((b, 4, c, h * w))
        xs[:, 0] = x.flatten(2, 3)
        xs[:, 1] = x.transpose(dim0=2, dim1=3).flatten(2, 3)
        xs[:, 2:4] = torch.flip(xs[:, 0:2], dims=[-1])
        return xs


def windows(x: Tensor, size: int) -> Tensor:
    b, c, h, w = x.shape
    x = x.view(b, c, h // size, size, w // size, size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, size * size, c)


def skipped(x: Tensor) -> Tensor:
    xs = x.new_zeros((x.shape[0], x.shape[1], 2 * x.shape[2], 2 * x.shape[3]))
    xs[:, :, ::2, 1::2] = x
    xs[:, :, 1::2, ::2] = x * 2
    return xs


def shuffled(x: Tensor, groups: int) -> Tensor:
    b, h, w, c = x.shape
    return x.view(b, h, w, groups, c // groups).transpose(3, 4).contiguous().view(b, h, w, -1)


ROWS = torch.tensor([5, 0, 0, 11, 3])

IMAGES: dict[str, nn.Module] = {
    "cross scan in place": Call(lambda x: CrossScan.apply(x).sum(2)),  # type: ignore[no-untyped-call]
    "skip scan in place": Call(skipped),
    "strided slices": Call(lambda x: torch.cat([x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]], 1)),
    "cross scan by stack": Call(
        lambda x: torch.stack([x.flatten(2), x.transpose(2, 3).contiguous().flatten(2)], 1).view(1, 2, -1, 120)
    ),
    "einsum of directions": Call(lambda x: torch.einsum("b k d l, k c d -> b k c l", x.view(1, 2, 4, -1), W[2, 5, 4])),
    "einsum of attention": Call(lambda x: torch.einsum("bchw,bdhw->bcd", x, x)),
    "windows": Call(lambda x: windows(x, 2)),
    "windows and back": Call(
        lambda x: windows(x, 2).view(1, 6, 5, 2, 2, 8).permute(0, 5, 1, 3, 2, 4).reshape(1, 8, 12, 10)
    ),
    "channel shuffle": Call(lambda x: shuffled(x.permute(0, 2, 3, 1), 2).permute(0, 3, 1, 2)),
    "chunk by position": Call(lambda x: torch.cat(list(reversed(x.chunk(4, dim=1))), 1)),
    "unbind": Call(lambda x: x.unbind(1)[3] - x.unbind(-1)[2].sum()),
    "roll": Call(lambda x: torch.roll(x, shifts=(-2, 3), dims=(2, 3))),
    "roll all": Call(lambda x: torch.roll(x, 7)),
    "flip": Call(lambda x: x.flip([-1, 2])),
    "rot90": Call(lambda x: torch.rot90(x, 1, (2, 3))),
    "pixel shuffle": nn.PixelShuffle(2),
    "pixel unshuffle": nn.PixelUnshuffle(2),
    "space to depth by slices": Call(lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2]], 1)),
    "expand": Call(lambda x: x[:, :1].expand(-1, 4, -1, -1) + W[4, 1, 1]),
    "repeat": Call(lambda x: x.repeat(1, 2, 1, 3)),
    "repeat interleave": Call(lambda x: x.repeat_interleave(2, dim=1)),
    "index select": Call(lambda x: torch.index_select(x, 2, ROWS)),
    "index by rows": Call(lambda x: x[:, :, ROWS]),
    "index by pixels": Call(lambda x: x[:, :, ROWS, torch.tensor([1, 2, 3, 9, -1])]),
    "gather": Call(lambda x: torch.gather(x, 2, ROWS.view(1, 1, 5, 1).expand(1, 8, 5, 10))),
    "gather of tokens": Call(
        lambda x: torch.gather(x.flatten(2), 2, torch.arange(119, -1, -1).view(1, 1, -1).repeat(1, 8, 1))
    ),
    "unfold": Call(lambda x: F.unfold(x, 3, padding=1)),
    "reflect": Call(lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect")),
    "replicate": Call(lambda x: F.pad(x, (1, 2, 0, 1), mode="replicate")),
    "pad with a value": Call(lambda x: F.pad(x, (1, 0, 0, 2), value=-1.5)),
    "masked fill": Call(lambda x: x.masked_fill(torch.ones(12, 10).tril() == 0, -3.0)),
    "where": Call(lambda x: torch.where(x > 0.2, x, -x * 0.5)),
    "compare": Call(lambda x: (x >= 0).float() + (x < 0.5).to(x.dtype) * ((x > -1) & (x != 0))),
    "clamp": Call(lambda x: x.clamp(-0.5, 0.7) + x.clamp(min=0.1) + torch.clamp(x, max=-0.2)),
    "maximum": Call(lambda x: torch.maximum(x, x.flip(1)) - torch.minimum(x, W[8, 1, 1])),
    "division": Call(lambda x: x / (x.abs() + 1) + 1 / (2 + x * x) + x / 7),
    "powers": Call(lambda x: x**2 + x**3 + (x * x + 1) ** 0.5 + (x * x + 1).pow(-0.5) + x.abs().add(1) ** 1.7),
    "sums with factors": Call(lambda x: torch.add(x, x.flip(2), alpha=0.3) - torch.sub(x, W[8, 1, 1], alpha=2)),
    "one minus": Call(lambda x: 1 - x.sigmoid()),
    "log1p and others": Call(lambda x: torch.log1p(x.abs()) + torch.expm1(x * 0.1) + x.square() + x.sin() * x.cos()),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(-0.3, 0.8),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "tanh": nn.Tanh(),
    "elu": nn.ELU(),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(),
    "softplus steep": Call(lambda x: F.softplus(x, beta=2.0)),
    "gelu tanh": nn.GELU("tanh"),
    "glu": nn.GLU(1),
    "prelu": nn.PReLU(8, init=0.3),
    "prelu of one slope": nn.PReLU(),
    "logsigmoid": nn.LogSigmoid(),
    "log softmax": nn.LogSoftmax(1),
    "softmax over channels": nn.Softmax(dim=1),
    "mean of all": Call(lambda x: x.mean() + x.sum() + x.mean(dim=(2, 3), keepdim=True)),
    "variance": Call(lambda x: x.var(dim=1, keepdim=True) + x.std((2, 3), unbiased=False, keepdim=True)),
    "maximum over channels": Call(lambda x: torch.max(x, dim=1, keepdim=True)[0] + x.amin(1, True)),
    "normalise": Call(lambda x: F.normalize(x, dim=1)),
    "cosine": Call(lambda x: F.cosine_similarity(x, x.flip(1), dim=1)),
    "batch norm": nn.BatchNorm2d(8),
    "conv, batch norm, relu": nn.Sequential(nn.Conv2d(8, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
    "layer norm of channels last": Call(lambda x, n: n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.LayerNorm(8)),
    "layer norm of images": nn.LayerNorm([8, 12, 10]),
    "layer norm by hand": Call(
        lambda x: (x - x.mean(1, keepdim=True)) / torch.sqrt((x - x.mean(1, keepdim=True)).pow(2).mean(1, True) + 1e-6)
    ),
    "group norm": nn.GroupNorm(4, 8),
    "group norm of one group": nn.GroupNorm(1, 8),
    "instance norm": nn.InstanceNorm2d(8, affine=True),
    "instance norm without weights": nn.InstanceNorm2d(8),
    "instance norm with statistics": nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    "conv in groups": nn.Conv2d(8, 12, 3, padding=1, groups=4),
    "conv same": nn.Conv2d(8, 5, 4, padding="same"),
    "conv depthwise dilated": nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
    "conv transposed with output padding": nn.ConvTranspose2d(8, 5, 3, stride=2, padding=1, output_padding=1),
    "conv transposed in groups": nn.ConvTranspose2d(8, 8, 2, stride=2, groups=4),
    "max pool padded": nn.MaxPool2d(3, 2, 1),
    "max pool ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "average pool padded": nn.AvgPool2d(3, 2, 1),
    "average pool without padding": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "average pool with divisor": nn.AvgPool2d(2, divisor_override=3),
    "adaptive average to one": nn.AdaptiveAvgPool2d(1),
    "adaptive average even": nn.AdaptiveAvgPool2d((6, 5)),
    "adaptive average uneven": nn.AdaptiveAvgPool2d((5, 3)),
    "adaptive max to one": nn.AdaptiveMaxPool2d(1),
    "adaptive max even": nn.AdaptiveMaxPool2d((4, 5)),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest to a size": Call(lambda x: F.interpolate(x, (17, 23))),
    "bilinear down": Call(lambda x: F.interpolate(x, (6, 5), mode="bilinear", align_corners=False)),
    "bicubic": Call(lambda x: F.interpolate(x, (20, 15), mode="bicubic", align_corners=False)),
    "positions resized": Call(lambda x: x + F.interpolate(W[1, 8, 7, 7], (12, 10), mode="bicubic")),
    "half precision inside": Call(lambda x: (x.float() * 2).to(x.dtype).type_as(x)),
    "autocast and no grad": Call(lambda x: _contexts(x)),
    "dropout": nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5)),
    "zeros and ones like": Call(lambda x: torch.ones_like(x) * x + torch.zeros_like(x[:, :1])),
    "loop over sizes": Call(lambda x: sum((x[:, i] * i for i in range(x.shape[1])), torch.zeros(1, 12, 10))),
    "padding to a multiple": Call(lambda x: F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 8))),
    "assert on sizes": Call(lambda x: _checked(x)),
}
SEQUENCES: dict[str, nn.Module] = {
    "attention": Call(lambda x: F.scaled_dot_product_attention(x, x, x)),
    "attention with a bias": Call(lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=W[16, 16])),
    "attention, causal": Call(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)),
    "attention of heads": Call(lambda x, f: _attend(x, f), nn.Linear(6, 18)),
    "multihead attention": Call(
        lambda x, a: a(x, x, x, need_weights=False)[0], nn.MultiheadAttention(6, 3, batch_first=True)
    ),
    "bmm": Call(lambda x: torch.bmm(x, x.transpose(1, 2))),
    "matrix from the left": Call(lambda x: W[5, 16] @ x),
    "matrix from the left of channels": Call(lambda x: W[5, 6] @ x.transpose(1, 2)),
    "matrices of groups": Call(lambda x: W[2, 6, 4].unsqueeze(0) @ x.view(2, 2, 4, 12)),
    "product with five axes": Call(lambda x: x.view(2, 2, 2, 4, 6) @ x.view(2, 2, 2, 6, 4)),
    "conv1d same": Call(
        lambda x, c: F.conv1d(x.transpose(1, 2), c.weight, padding="same", groups=6), nn.Conv1d(6, 6, 3, groups=6)
    ),
    "conv1d causal": Call(lambda x, c: c(x.transpose(1, 2))[..., :16], nn.Conv1d(6, 6, 4, padding=3, groups=6)),
    "batch norm of tokens": Call(lambda x, n: n(x.transpose(1, 2)), nn.BatchNorm1d(6)),
    "cumulative sum": Call(lambda x: torch.cumsum(x, 1)),
    "tokens with a class": Call(lambda x: torch.cat([x[:, :8], W[1, 1, 6].expand(2, -1, -1), x[:, 8:]], 1)),
    "lerp": Call(lambda x: torch.lerp(x, x.flip(1), 0.3)),
    "rms norm": Call(lambda x: F.rms_norm(x, (6,), W[6,].abs())),
    "position table": Call(lambda x, e: x + e(torch.arange(15, -1, -1)), nn.Embedding(16, 6)),
    "meshgrid": Call(
        lambda x: (
            x
            + torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij"), -1)
            .view(16, 2)
            .repeat(1, 3)
        )
    ),
}


def _contexts(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        y = x.float() * 2
    with torch.no_grad():
        return y + 1


def _checked(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    assert h % 2 == 0 and w == 10, "wrong size"
    if h > 10:
        x = x[:, :, : h // 2]
    return x.reshape(b, c, int((h // 2 * w) ** 0.5 + 0.5) * 0 + h // 2, w)


def _attend(x: Tensor, f: nn.Module) -> Tensor:
    b, n, c = x.shape
    q, k, v = f(x).reshape(b, n, 3, 3, c // 3).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) * 0.3).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(b, n, c)


def prepared(name: str) -> tuple[nn.Module, Tensor, np.ndarray[Any, Any]]:
    module, shape = (IMAGES[name], IMAGE) if name in IMAGES else (SEQUENCES[name], TOKENS)
    torch.manual_seed(0)
    for part in module.modules():
        for buffer, low, high in (("running_mean", -1, 1), ("running_var", 0.5, 2)):
            if getattr(part, buffer, None) is not None:
                nn.init.uniform_(getattr(part, buffer), low, high)
    module.eval()
    x = torch.randn(shape)
    with torch.no_grad():
        return module, x, module(x.clone()).numpy()


@pytest.mark.parametrize("name", [*IMAGES, *SEQUENCES])
def test_litert_computes_what_torch_computes(name: str) -> None:
    module, x, expected = prepared(name)
    found = run(convert(module, tuple(x.shape), foreign=True), x.numpy())
    assert found.size == expected.size
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize("name", [*IMAGES, *SEQUENCES])
def test_onnx_runtime_computes_what_torch_computes(name: str) -> None:
    module, x, expected = prepared(name)
    found = run_graph(to_graph(module, tuple(x.shape)), x.numpy())
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=5e-6)


class Remembering(nn.Module):
    """Keeps maps for a picture, counts calls, updates a buffer, checkpoints, and has its weights made up."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.spectral_norm(nn.Conv2d(8, 6, 1))
        self.second = nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 1))
        self.register_buffer("seen", torch.zeros(1, 6, 1, 1))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        y = torch.utils.checkpoint.checkpoint(self.first, x, use_reentrant=True)
        self.attention = y.softmax(1)
        self.calls += 1
        self.seen += 1
        z: Tensor = self.second(y) * self.attention + self.seen
        return z


@pytest.mark.parametrize("kind", ["remembering", "transformer"])
def test_modules_that_do_more_than_compute(kind: str) -> None:
    torch.manual_seed(0)
    made = Remembering if kind == "remembering" else lambda: nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
    shape = IMAGE if kind == "remembering" else TOKENS
    x = torch.randn(shape)
    with torch.no_grad():
        torch.manual_seed(1)
        expected = made().eval()(x).numpy()
    for export in (
        lambda m: run(convert(m, shape, foreign=True), x.numpy()),
        lambda m: run_graph(to_graph(m, shape), x.numpy()),
    ):
        torch.manual_seed(1)
        network = made().eval()
        found = export(network)
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=2e-5, atol=5e-6)


class Deep(nn.Module):
    """Something two modules down."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.stem, self.layers = nn.Conv2d(8, 8, 1), nn.ModuleList([nn.Sequential(nn.ReLU(), Call(function))])

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers[0](self.stem(x))
        return result


FORMATS = [lambda m, s: convert(m, s, foreign=True), to_graph]


@pytest.mark.parametrize("export", FORMATS, ids=["tflite", "onnx"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * float(x.max().item()),
        lambda x: x[x > 0].mean() * x,
        lambda x: x[:, : int(x.argmax())],
    ],
    ids=["branch", "item", "mask", "size"],
)
def test_a_decision_by_value_is_named_with_its_module(export: Any, function: Any) -> None:
    with pytest.raises(Unsupported, match=r"layers\.0\.1 \(Call\) decides by the value of a tensor") as caught:
        export(Deep(function).eval(), IMAGE)
    assert "torch.where" in caught.value.hint and "\n" not in caught.value.message


@pytest.mark.parametrize("export", FORMATS, ids=["tflite", "onnx"])
def test_another_input_shape_is_named_with_its_module(export: Any) -> None:
    message = r"cannot run on this input: RuntimeError: .*expected input.*in stem \(Conv2d\)"
    with pytest.raises(InputError, match=message) as caught:
        export(Deep(torch.relu).eval(), (1, 3, 12, 10))
    assert "--input" in caught.value.hint
    with pytest.raises(InputError, match=r"AssertionError: wrong size.*, in layers\.0\.1 \(Call\)"):
        export(Deep(_checked).eval(), (1, 8, 12, 12))


@pytest.mark.parametrize("export", FORMATS, ids=["tflite", "onnx"])
def test_an_operator_without_counterpart_is_named(export: Any) -> None:
    with pytest.raises(Unsupported, match=r"aten\.special_erfcx\.default in layers\.0\.1 \(Call\)") as caught:
        export(Deep(torch.special.erfcx).eval(), IMAGE)
    assert caught.value.hint


def test_a_sort_is_named_with_its_module() -> None:
    with pytest.raises(Unsupported, match=r"aten\.sort\.default in layers\.0\.1 \(Call\) has no TFLite lowering"):
        convert(Deep(lambda x: x.sort(1)[0]).eval(), IMAGE, foreign=True)


def test_axes_of_length_one_do_not_move() -> None:
    model = convert(IMAGES["windows"], IMAGE, foreign=True)
    graph = model.subgraphs[0]
    axes = [
        len(graph.tensors[op.inputs[0]].shape)
        for op, name in zip(graph.operators, names(model), strict=True)
        if name == "TRANSPOSE"
    ]
    assert axes and max(axes) == 5


def test_a_group_of_one_scope_a_node() -> None:
    graph = to_graph(Deep(torch.tanh), IMAGE)
    assert [node.name for node in graph.graph.node] == ["stem/Conv.1", "layers/0/0/Relu.1", "layers/0/1/Tanh.1"]


def test_means_over_an_image_keep_float32() -> None:
    """A large image far from zero: one sum over its pixels was off by 1e-3 of what the normalisation gives."""
    conv, shape = nn.Conv2d(8, 8, 1, groups=8, bias=False), (1, 8, 96, 96)
    nn.init.ones_(conv.weight)
    net = nn.Sequential(conv, nn.ReLU(), nn.GroupNorm(8, 8), nn.Conv2d(8, 8, 1, bias=False)).eval()
    nn.init.dirac_(net[3].weight)
    x = 1 + 0.01 * torch.rand(shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = net.double()(x.double()).numpy()
    found = run(convert(net.float(), shape, foreign=True), x.numpy())
    assert np.abs(found.reshape(expected.shape) - expected).max() < 2e-4
