"""The int8 graph of both quantizers: one Q/DQ form, checked on the graph by this file's own rules, and its
masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgemamba.errors import InputError, Unsupported, VerificationError
from edgemamba.files import sha256_json
from edgemamba.models import build
from edgemamba.sources import TrainedSource
from edgemamba.stages.artifact import Artifact, open_artifact
from edgemamba.stages.calibration import CalibrationSet, ImageSet
from edgemamba.stages.compare_quantizers import compare_quantizers
from edgemamba.stages.int8_onnx import int8_nodes, quantize, to_int8
from edgemamba.stages.onnx_graph import attributes, initializers
from edgemamba.stages.onnx_groups import group_nodes
from edgemamba.stages.plan import QUANTIZERS, QuantizerName
from edgemamba.stages.qdq import check_form, quantize_weight, read
from edgemamba.stages.quantizers import activation_ranges, nearest
from edgemamba.stages.to_onnx import to_onnx
from edgemamba.stages.verify import verify
from edgemamba.tasks.segmentation import Segmentation


@pytest.fixture(scope="module", params=QUANTIZERS)
def int8(
    request: pytest.FixtureRequest,
    fp32: Artifact,
    calibration: CalibrationSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> Artifact:
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    facts = to_int8(fp32.path, calibration, path, quantizer=request.param, task="segmentation")
    return open_artifact(path, "onnx", "int8", facts)


def check_rules(model: onnx.ModelProto) -> tuple[int, int]:
    """The rules of TensorRT's explicit quantization; returns activation pairs and int8 weights."""
    constants = initializers(model.graph)
    writers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    assert not [t.name for t in model.graph.initializer if t.data_type in (TensorProto.UINT8, TensorProto.INT32)]
    pairs = weights = 0
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
        assert zero.dtype == np.int8 and not zero.any()
        assert scale.dtype == np.float32 and (scale > 0).all() and scale.shape == zero.shape
        if node.op_type == "QuantizeLinear":
            pairs += 1
            assert scale.ndim == 0
            assert {reader.op_type for reader in readers[node.output[0]]} == {"DequantizeLinear"}
        elif node.input[0] in constants:
            weights += 1
            stored = numpy_helper.to_array(constants[node.input[0]])
            (reader,) = readers[node.output[0]]
            position = list(reader.input).index(node.output[0])
            if reader.op_type in ("Conv", "ConvTranspose"):
                axis = {"Conv": 0, "ConvTranspose": 1}[reader.op_type]
            else:
                # The output channels of a product: rows of its first operand, columns of its second.
                axis = stored.ndim - 2 if position == 0 else stored.ndim - 1
            assert attributes(node)["axis"] == axis and scale.shape == (stored.shape[axis],)
        else:
            source = writers[node.input[0]]
            assert source.op_type == "QuantizeLinear" and list(source.input[1:]) == list(node.input[1:])
            assert {reader.op_type for reader in readers[node.output[0]]} <= {"Conv", "ConvTranspose", "MatMul"}
    return pairs, weights


def test_form_is_the_one_tensorrt_takes(int8: Artifact) -> None:
    model = onnx.load(int8.path)
    onnx.checker.check_model(model, full_check=True)
    pairs, weights = check_rules(model)
    assert (pairs, weights) == (int8.facts["pairs"], 29)
    assert int8.facts["quantized"] == {"projection": 24, "conv": 5}
    assert not model.metadata_props and b"nncf" not in int8.path.read_bytes()
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]


def test_what_must_stay_float_reads_no_int8(int8: Artifact) -> None:
    model = onnx.load(int8.path)
    writers = {name: node for node in model.graph.node for name in node.output}
    groups = group_nodes(model)
    quantized = {
        node.name
        for node in model.graph.node
        if any(name in writers and writers[name].op_type == "DequantizeLinear" for name in node.input)
    }
    assert {groups[name] for name in quantized} == {"conv", "projection"}
    floats = [name for name in groups if name.split("/")[0] in ("final", "scab") or "norm" in name or "/Exp" in name]
    assert floats and not quantized.intersection(floats)
    biases = [node.input[2] for node in model.graph.node if node.op_type == "Conv" and len(node.input) > 2]
    constants = initializers(model.graph)
    assert {constants[name].data_type for name in biases} == {TensorProto.FLOAT}


def test_masks_hold_and_the_file_shrinks(
    int8: Artifact, fp32: Artifact, source: TrainedSource, images: ImageSet
) -> None:
    numbers = verify(int8, source, images, "int8")
    assert numbers["mask_dice"] >= 0.98
    assert int8.path.stat().st_size < fp32.path.stat().st_size


def test_facts_name_the_calibration_images(int8: Artifact, calibration: CalibrationSet) -> None:
    recorded = int8.facts["calibration"]
    assert recorded["images"] == 16 and recorded["files_sha256"] == sha256_json(list(calibration.ids))
    assert recorded["sha256"] == calibration.sha256
    assert recorded["with_foreground"] >= 8


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_unet_with_folded_norms_and_transposed_convolutions(
    quantizer: QuantizerName, calibration: CalibrationSet, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "unet.onnx"
    to_onnx(build("unet").eval(), (64, 64), path, opset=20, ir_version=10)
    few = CalibrationSet(calibration.images[:4], calibration.truths[:4], calibration.ids[:4], "few")
    graph, counts = quantize(onnx.load(path), few, quantizer=quantizer, task="tensor")
    pairs, weights = check_rules(graph)
    assert counts["quantized"] == {"conv": 22} and (pairs, weights) == (22, 22)
    assert sum(node.op_type == "ConvTranspose" for node in graph.graph.node) == 4
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    before = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for image in few:
        a, b = (one.run(None, {"image": image})[0] for one in (session, before))
        assert np.abs(a - b).mean() < 1e-3


def test_scales_are_the_averages_of_the_images(graph: onnx.ModelProto, calibration: CalibrationSet) -> None:
    ranges = activation_ranges(graph, ["image"], calibration, "segmentation")
    lows = [float(image.min()) for image in calibration]
    highs = [float(image.max()) for image in calibration]
    assert ranges["image"] == pytest.approx((np.mean(lows), np.mean(highs)))
    quantized, _ = quantize(graph, calibration, quantizer="ort", task="segmentation")
    constants = initializers(quantized.graph)
    (pair,) = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "image"]
    step = float(numpy_helper.to_array(constants[pair.input[1]]))
    assert step == pytest.approx(np.mean(highs) / 127, rel=0.01)


def test_weights_are_rounded_per_channel() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype(np.float32) * np.float32(
        [[[[1]]], [[[9]]], [[[0]]], [[[1e-3]]]]
    )
    stored, scale = quantize_weight(weight, 0)
    assert np.abs(stored[[0, 1, 3]]).max(axis=(1, 2, 3)).tolist() == [127, 127, 127]
    assert not stored[2].any() and scale[2] > 0
    np.testing.assert_allclose(stored * scale[:, None, None, None], weight, atol=float(scale.max()) / 2 + 1e-6)


def test_uint8_activation_becomes_int8_of_the_same_range(graph: onnx.ModelProto) -> None:
    # As NNCF writes it behind a ReLU: uint8, zero point 0; also above a transposition.
    quantized = onnx.ModelProto()
    quantized.CopyFrom(graph)
    target = next(node for node in quantized.graph.node if node.name == "encoder2.0/Conv.1")
    constants = {
        "s": np.float32(0.02),
        "z": np.uint8(0),
        "w8": np.ones(initializers(graph.graph)[target.input[1]].dims, np.int8),
        "ws": np.float32(0.1),
    }
    quantized.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    quantized.graph.node.extend(
        [
            helper.make_node("QuantizeLinear", [target.input[0], "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"]),
            helper.make_node("Transpose", ["dq"], ["moved"]),
            helper.make_node("DequantizeLinear", ["w8", "ws"], ["wdq"]),
        ]
    )
    target.input[0], target.input[1] = "moved", "wdq"
    found = read(quantized, graph, ["encoder2.0/Conv.1", "encoder3.0/Conv.1"])
    assert list(found) == ["encoder2.0/Conv.1"]
    assert found["encoder2.0/Conv.1"].activation * 127 == pytest.approx(0.02 * 255)
    assert found["encoder2.0/Conv.1"].bias is None
    zero = next(t for t in quantized.graph.initializer if t.name == "z")
    zero.CopyFrom(numpy_helper.from_array(np.uint8(3), "z"))
    with pytest.raises(VerificationError, match="zero point 3"):
        read(quantized, graph, ["encoder2.0/Conv.1"])


def _zero_point(model: onnx.ModelProto) -> None:
    tensor = initializers(model.graph)["zero_point"]
    tensor.CopyFrom(numpy_helper.from_array(np.int8(1), tensor.name))


def _uint8(model: onnx.ModelProto) -> None:
    tensor = initializers(model.graph)["zero_point"]
    tensor.CopyFrom(numpy_helper.from_array(np.uint8(0), tensor.name))


def _axis(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.name == "DequantizeLinear/encoder2.0.weight")
    node.attribute[0].i = 1


def _norm(model: onnx.ModelProto) -> None:
    pair = next(n for n in model.graph.node if n.op_type == "DequantizeLinear")
    node = next(n for n in model.graph.node if n.op_type == "LayerNormalization")
    node.input[0] = pair.output[0]


def _lonely(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.name == "DequantizeLinear/q0")
    node.input[0] = "image"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_zero_point, "zero point that is not int8 0"),
        (_uint8, "zero point that is not int8 0"),
        (_axis, "do not follow axis 0"),
        (_norm, "of group norm reads an int8 tensor"),
        (_lonely, "restores what no QuantizeLinear wrote"),
    ],
)
def test_form_check_finds_what_is_wrong(
    spoil: Callable[[onnx.ModelProto], None], message: str, graph: onnx.ModelProto, calibration: CalibrationSet
) -> None:
    model, _ = quantize(graph, calibration, quantizer="ort", task="segmentation")
    check_form(model)
    spoil(model)
    with pytest.raises(VerificationError, match=message):
        check_form(model)


def test_graph_without_candidates_is_an_error_and_not_everything() -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 4, 4])
    probability = helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1, 1, 4, 4])
    node = helper.make_node("Sigmoid", ["image"], ["probability"], name="Sigmoid.1")
    with pytest.raises(Unsupported, match="no convolution or projection"):
        int8_nodes(helper.make_model(helper.make_graph([node], "main", [image], [probability])))


def test_network_that_finds_nothing_is_not_calibrated(
    graph: onnx.ModelProto, calibration: CalibrationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmentation, "threshold", 1.1)
    with pytest.raises(InputError, match=r"finds no foreground: largest probability .* in 16 calibration images"):
        quantize(graph, calibration, quantizer="ort", task="segmentation")


def test_comparison_scores_both_quantizers(
    fp32: Artifact, source: TrainedSource, calibration: CalibrationSet, images: ImageSet
) -> None:
    table = compare_quantizers(fp32, source, calibration, images)
    assert list(table) == ["fp32", *QUANTIZERS]
    assert table["fp32"]["dice"] > 0.5
    for name in QUANTIZERS:
        assert table[name]["retention"] == pytest.approx(table[name]["dice"] / table["fp32"]["dice"])
        assert table[name]["mask_dice"] > 0.98
        assert 0 <= table[name]["false_alarms"] <= 1


def test_the_nearer_graph_is_taken(graph: onnx.ModelProto, calibration: CalibrationSet) -> None:
    """A quantizer's corrected biases are kept only where they help on the calibration images."""
    shifted = onnx.ModelProto()
    shifted.CopyFrom(graph)
    bias = initializers(shifted.graph)["final.bias"]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    assert nearest(graph, (shifted, graph), calibration) == 1
    assert nearest(graph, (graph, shifted), calibration) == 0
    _, facts = quantize(graph, calibration, quantizer="nncf", task="segmentation")
    assert facts["bias_correction"] in ("kept", "dropped")
