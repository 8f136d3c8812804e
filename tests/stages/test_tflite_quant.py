"""fp16 and int8: which tensors change, which never do, what is lost, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tflite_run import names, run
from torch import nn

from edgemamba.errors import InputError, Unsupported
from edgemamba.models import build
from edgemamba.sources import TrainedSource
from edgemamba.stages import tflite_graph, tflite_quant
from edgemamba.stages.calibration import CalibrationSet, ImageSet
from edgemamba.stages.tflite_graph import FLOAT16, FLOAT32, INT8, INT32
from edgemamba.stages.to_tflite import convert, to_tflite

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


class Small(nn.Module):
    """Convolutions, a pool, a join and a transposed convolution, ending in a map of probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.mix = nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.first(x)
        return torch.sigmoid(self.head(self.mix(torch.cat([self.up(self.deep(skip)), skip], 1))))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("small") / "small.tflite"
    tflite_graph.write(convert(Small().eval(), (1, 3, 32, 32)), path)
    return path


@pytest.fixture(scope="module")
def fp32(source: TrainedSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fp32") / "model.tflite"
    to_tflite(source.build(), source.size, path)
    return path


@pytest.fixture(scope="module")
def int8(fp32: Path, calibration: CalibrationSet) -> tuple[Path, dict[str, Any]]:
    path = fp32.with_name("int8.tflite")
    return path, tflite_quant.int8(fp32, calibration, path)


def images_of(seed: int, count: int = 8, *, size: int = 32) -> CalibrationSet:
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), np.uint8)
    masks = np.ones((count, size, size), np.uint8)
    return CalibrationSet(images, masks, tuple(f"image {i}" for i in range(count)), "random images")


def layer_types(model: Any) -> dict[str, list[int]]:
    """Tensor types of every layer with weights: input, weights, bias if any, output."""
    graph = model.subgraphs[0]
    found = {}
    for operator in graph.operators:
        kind = tflite_graph.operator_name(model, operator)
        if kind in WEIGHTED:
            inputs = list(operator.inputs[1:] if kind == "TRANSPOSE_CONV" else operator.inputs)
            if kind == "TRANSPOSE_CONV":
                inputs[:2] = inputs[1::-1]
            found[tflite_graph.tensor_name(graph.tensors[operator.outputs[0]])] = [
                graph.tensors[i].type for i in [*inputs, *operator.outputs]
            ]
    return found


def mask_dice(found: np.ndarray, expected: np.ndarray) -> float:
    ours, theirs = found >= 0.5, expected >= 0.5
    return float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))


def test_fp16_stores_weights_in_half(fp32: Path, images: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "fp16.tflite"
    facts = tflite_quant.fp16(fp32, out)
    before, after = tflite_graph.read(fp32), tflite_graph.read(out)
    halves = [tensor for tensor in after.subgraphs[0].tensors if tensor.type == FLOAT16]
    assert len(halves) == facts["float16_weights"] == names(after).count("DEQUANTIZE")
    assert [name for name in names(after) if name != "DEQUANTIZE"] == names(before)
    assert facts["bytes"] == out.stat().st_size < fp32.stat().st_size
    expected = np.stack([run(fp32, image)[0, 0] for image in images])
    found = np.stack([run(out, image)[0, 0] for image in images])
    assert np.abs(found - expected).max() > 0
    assert mask_dice(found, expected) > 0.999


def test_fp16_leaves_norms_steps_and_biases_alone(fp32: Path, tmp_path: Path) -> None:
    out = tmp_path / "fp16.tflite"
    tflite_quant.fp16(fp32, out)
    model = tflite_graph.read(out)
    graph = model.subgraphs[0]
    unpacked = {
        operator.outputs[0]
        for operator in graph.operators
        if tflite_graph.operator_name(model, operator) == "DEQUANTIZE"
    }
    for operator in graph.operators:
        name = tflite_graph.tensor_name(graph.tensors[operator.outputs[0]])
        kind = tflite_graph.operator_name(model, operator)
        if kind in WEIGHTED:
            exact = "_averages" in name or "dt_proj" in name
            assert (operator.inputs[1] in unpacked) != exact, name
            assert not unpacked & set(operator.inputs[2:])
        elif kind != "DEQUANTIZE":
            assert not unpacked & set(operator.inputs), kind


def test_fp16_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    net = nn.Conv2d(3, 2, 1)
    nn.init.constant_(net.weight, 1e6)
    tflite_graph.write(convert(net, (1, 3, 8, 8)), tmp_path / "large.tflite")
    with pytest.raises(Unsupported, match="a weight of 1e\\+06 is beyond float16"):
        tflite_quant.fp16(tmp_path / "large.tflite", tmp_path / "half.tflite")
    assert not (tmp_path / "half.tflite").exists()


def test_fp16_of_fp16(small: Path, tmp_path: Path) -> None:
    tflite_quant.fp16(small, tmp_path / "half.tflite")
    with pytest.raises(Unsupported, match="has no float32 weights"):
        tflite_quant.fp16(tmp_path / "half.tflite", tmp_path / "quarter.tflite")


def test_int8_layers_of_a_plain_network(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.tflite"
    facts = tflite_quant.int8(small, images_of(0), out)
    model = tflite_graph.read(out)
    types = layer_types(model)
    # The head, and the layer whose result it reads.
    assert types.pop("head") == types.pop("mix") == [FLOAT32] * 4
    assert types == {name: [INT8, INT8, INT32, INT8] for name in ("first.0", "deep.1", "up")}
    assert facts["quantized_operators"] == {"CONV_2D": 2, "MAX_POOL_2D": 1, "TRANSPOSE_CONV": 1}
    assert (facts["int8_layers"], facts["float_layers"]) == (["deep.1", "first.0", "up"], ["head", "mix"])
    # int8 goes in once and comes out where the two branches are joined: nothing between the layers is float.
    assert names(model).count("DEQUANTIZE") == 2
    image = next(iter(images_of(1)))
    assert np.abs(run(out, image) - run(small, image)).max() < 0.02


def test_int8_weights_are_per_channel_and_symmetric(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.tflite"
    tflite_quant.int8(small, images_of(0), out)
    model, float_model = tflite_graph.read(out), tflite_graph.read(small)

    def weights(of: Any) -> tuple[Any, np.ndarray]:
        operator = next(op for op in of.subgraphs[0].operators if tflite_graph.operator_name(of, op) == "CONV_2D")
        index = operator.inputs[1]
        return of.subgraphs[0].tensors[index], tflite_graph.constant(of, index)

    (tensor, stored), (_, expected) = weights(model), weights(float_model)
    scales = np.asarray(tensor.quantization.scale)
    assert (len(scales), tensor.quantization.quantizedDimension) == (8, 0)
    assert not np.any(tensor.quantization.zeroPoint)
    np.testing.assert_allclose(scales, np.abs(expected).max((1, 2, 3)) / 127, rtol=1e-6)
    restored = stored * scales[:, None, None, None]
    assert (np.abs(restored - expected) <= scales[:, None, None, None] * 0.501).all()


def test_int8_ranges_are_averaged_over_images(small: Path, tmp_path: Path) -> None:
    """One image of full contrast among dark ones moves the input scale by its share, not all the way."""
    images = images_of(2, 4)
    images.images[:3] //= 8
    out = tmp_path / "int8.tflite"
    tflite_quant.int8(small, images, out)
    model = tflite_graph.read(out)
    graph = model.subgraphs[0]
    first = next(op for op in graph.operators if tflite_graph.operator_name(model, op) == "CONV_2D")
    scale = float(graph.tensors[first.inputs[0]].quantization.scale[0])
    brightest = images.images.reshape(4, -1).max(1) / 255.0
    assert scale == pytest.approx(brightest.mean() / 255, rel=1e-5)


def test_int8_of_the_network(
    int8: tuple[Path, dict[str, Any]], fp32: Path, images: ImageSet, calibration: CalibrationSet
) -> None:
    path, facts = int8
    assert facts["bytes"] == path.stat().st_size < fp32.stat().st_size
    assert facts["quantizer"] == "ai-edge-quantizer"
    assert facts["calibration"] == calibration.as_document()
    assert set(facts["quantized_operators"]) == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
    expected = np.stack([run(fp32, image)[0, 0] for image in images])
    found = np.stack([run(path, image)[0, 0] for image in images])
    assert mask_dice(found, expected) > 0.95


def test_int8_groups(int8: tuple[Path, dict[str, Any]]) -> None:
    """Convolutions and projections are int8; bridge, norms, step sizes and head are float."""
    types = layer_types(tflite_graph.read(int8[0]))
    floats = {name for name, kinds in types.items() if INT8 not in kinds}
    assert all(re.search(r"^scab\.|_averages|dt_proj|^final$", name) for name in floats)
    for name in ("encoder2.0", "encoder4.0.mamba.in_proj", "encoder4.0.mamba.conv1d", "decoder2.0.proj"):
        assert types[name][0] == types[name][1] == types[name][-1] == INT8
    assert len(types) - len(floats) == len(int8[1]["int8_layers"]) == 30
    assert sorted(floats) == int8[1]["float_layers"]


def test_int8_touches_nothing_of_the_scan(int8: tuple[Path, dict[str, Any]]) -> None:
    """Only layers, QUANTIZE and DEQUANTIZE see int8, so the scan, softplus, norms, resizes and input are float."""
    model = tflite_graph.read(int8[0])
    graph = model.subgraphs[0]
    touched = {
        tflite_graph.operator_name(model, operator)
        for operator in graph.operators
        if any(graph.tensors[i].type == INT8 for i in [*operator.inputs, *operator.outputs])
    }
    assert touched == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "QUANTIZE", "DEQUANTIZE"}
    ends = [graph.tensors[i] for i in [*graph.inputs, *graph.outputs]]
    assert [(tensor.type, tflite_graph.tensor_name(tensor)) for tensor in ends] == [
        (FLOAT32, "image"),
        (FLOAT32, "probability"),
    ]


def test_int8_is_repeatable(fp32: Path, int8: tuple[Path, dict[str, Any]], calibration: CalibrationSet) -> None:
    again = fp32.with_name("again.tflite")
    tflite_quant.int8(fp32, calibration, again)
    assert again.read_bytes() == int8[0].read_bytes()


def test_int8_says_nothing_on_the_way(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tflite_quant.int8(small, images_of(0), tmp_path / "int8.tflite")
    assert capsys.readouterr() == ("", "")


def test_int8_refuses_a_network_that_finds_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Small().eval()
    nn.init.constant_(net.head.bias, -20.0)
    tflite_graph.write(convert(net, (1, 3, 32, 32)), tmp_path / "blind.tflite")
    with pytest.raises(InputError, match=r"no foreground: largest probability 0\.000 in 8 calibration images"):
        tflite_quant.int8(tmp_path / "blind.tflite", images_of(0), tmp_path / "int8.tflite")


def test_int8_needs_a_layer(tmp_path: Path) -> None:
    tflite_graph.write(convert(nn.Sigmoid(), (1, 3, 32, 32)), tmp_path / "none.tflite")
    with pytest.raises(Unsupported, match=r"no layer of none\.tflite may become int8"):
        tflite_quant.int8(tmp_path / "none.tflite", images_of(0), tmp_path / "int8.tflite")


def test_step_by_step_scans_stay_float(tmp_path: Path) -> None:
    """v6: pyramid pooling is a product with constant matrices, dt of rank 4 is a product, too."""
    model = build("ul-vm-unet-v6").eval()
    to_tflite(model, (64, 64), tmp_path / "v6.tflite")
    graph = tflite_graph.read(tmp_path / "v6.tflite")
    layers = [name for name, _ in tflite_quant.int8_layers(graph).values()]
    assert "encoder6.0.ppm.conv_layers.2" in layers
    assert "decoder1.0.mamba.x_proj" in layers
    assert not [name for name in layers if "matrix" in name or "dt_proj" in name]
