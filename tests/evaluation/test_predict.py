"""Prediction of files through a real Bundle: any size and format, every bad file named, all or nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edgemamba.board.images import open_image
from edgemamba.bundle import build
from edgemamba.console import Console
from edgemamba.errors import InputError, Unsupported, UsageError, VerificationError
from edgemamba.evaluation.evaluate import evaluate
from edgemamba.evaluation.predict import predict_images
from edgemamba.evaluation.predictors import bundle_predictor
from edgemamba.presets import find_target
from edgemamba.registry import model_info
from edgemamba.stages.artifact import open_artifact

QUIET = Console(quiet=True)
SIZE = (32, 48)


def write_net(path) -> None:
    """An ONNX graph that answers with the second channel, and with NaN (0/0) to a picture of one colour."""
    height, width = SIZE
    weight = np.zeros((1, 3, 1, 1), np.float32)
    weight[0, 1] = 1
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight"], ["green"]),
            helper.make_node("ReduceMax", ["image"], ["most"]),
            helper.make_node("ReduceMin", ["image"], ["least"]),
            helper.make_node("Sub", ["most", "least"], ["range"]),
            helper.make_node("Div", ["range", "range"], ["one"]),
            helper.make_node("Mul", ["green", "one"], ["probability"]),
        ],
        "second_channel",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1, 1, height, width])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    write_net(folder / "net.onnx")
    build(
        folder / "out",
        artifact=open_artifact(folder / "net.onnx", "onnx", "fp32", {}),
        target=find_target("cpu"),
        model_info=model_info("ul-vm-unet"),
        size=SIZE,
        reference=lambda images: images[:, 1],
        stages=[],
        verification={},
        quantization=None,
        source={"weights_sha256": "0" * 64},
        data=None,
        metrics={},
    )
    return folder / "out"


def draw(path, size: tuple[int, int], mode: str = "RGB") -> np.ndarray:
    """A picture whose right half is bright; returns where."""
    height, width = size
    pixels = np.full((height, width, 3), 20, np.uint8)
    pixels[:, width // 2 :] = 230
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return np.arange(width) >= width // 2


FORMATS = [
    ("a.png", (32, 48), "RGB"),
    ("b.tif", (100, 37), "RGB"),
    ("c.jpg", (64, 300), "L"),
    ("d.gif", (20, 20), "P"),
    ("e.bmp", (33, 47), "RGB"),
    ("f.webp", (48, 32), "RGBA"),
]


def test_masks_and_overlays_have_the_images_own_size(bundle, tmp_path):
    halves = {name: draw(tmp_path / name, size, mode) for name, size, mode in FORMATS}
    paths = [tmp_path / name for name, _, _ in FORMATS]
    rows = predict_images(bundle, paths, tmp_path / "out", QUIET)
    assert len(list((tmp_path / "out").iterdir())) == 2 * len(FORMATS)
    for row, (name, (height, width), _) in zip(rows, FORMATS, strict=True):
        assert (row["image"], row["height"], row["width"]) == (str(tmp_path / name), height, width)
        with Image.open(row["mask"]) as mask, Image.open(row["overlay"]) as drawn:
            assert mask.size == drawn.size == (width, height)
            assert (mask.mode, drawn.mode) == ("L", "RGB")
            values = np.asarray(mask)
        assert set(np.unique(values)) == {0, 255}
        # The border may lie a pixel of the coarser grid off.
        off = max(1, round(width / SIZE[1]))
        columns = np.arange(width)
        sure = abs(columns - width // 2 + 0.5) > off
        assert np.array_equal(values[:, sure] == 255, np.tile(halves[name][sure], (height, 1)))
        assert row["foreground_pixels"] == (values == 255).sum()
        assert row["foreground_share"] == pytest.approx((values == 255).mean())


def test_threshold_overrides_the_bundles(bundle, tmp_path):
    draw(tmp_path / "a.png", SIZE)
    high = predict_images(bundle, [tmp_path / "a.png"], tmp_path / "high", QUIET, threshold=0.95)
    low = predict_images(bundle, [tmp_path / "a.png"], tmp_path / "low", QUIET, threshold=0.05)
    assert (high[0]["foreground_pixels"], low[0]["foreground_share"]) == (0, 1.0)


def test_every_bad_image_is_named_and_nothing_written(bundle, tmp_path):
    draw(tmp_path / "good.png", SIZE)
    (tmp_path / "text.png").write_text("not an image")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    paths = [tmp_path / name for name in ("text.png", "good.png", "cut.png", "missing.png")]
    with pytest.raises(InputError) as caught:
        predict_images(bundle, paths, tmp_path / "out", QUIET)
    for name in ("3 of 4", "text.png", "cut.png", "missing.png"):
        assert name in caught.value.message
    assert "good.png" not in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.png", "good.png", "text.png"]


def test_one_bad_image_keeps_its_own_hint(bundle, tmp_path):
    with pytest.raises(InputError, match="does not exist") as caught:
        predict_images(bundle, [tmp_path / "missing.png"], tmp_path / "out", QUIET)
    assert caught.value.hint


def test_equal_names_in_different_folders_keep_their_folders(bundle, tmp_path):
    for patient in ("p1", "p2"):
        draw(tmp_path / patient / "1.png", SIZE)
    rows = predict_images(bundle, [tmp_path / "p1/1.png", tmp_path / "p2/1.png"], tmp_path / "out", QUIET)
    assert [row["mask"] for row in rows] == [str(tmp_path / f"out/{p}/1_mask.png") for p in ("p1", "p2")]
    assert (tmp_path / "out/p2/1_overlay.png").is_file()


def test_two_images_of_one_name_are_refused(bundle, tmp_path):
    draw(tmp_path / "a.png", SIZE)
    draw(tmp_path / "a.tif", SIZE)
    with pytest.raises(UsageError, match=r"both write a"):
        predict_images(bundle, [tmp_path / "a.png", tmp_path / "a.tif"], tmp_path / "out", QUIET)


def test_other_files_in_the_output_folder_stay(bundle, tmp_path):
    draw(tmp_path / "a.png", SIZE)
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for _ in range(2):
        predict_images(bundle, [tmp_path / "a.png"], out, QUIET)
    assert sorted(path.name for path in out.iterdir()) == ["a_mask.png", "a_overlay.png", "notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out"]


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_thresholds(bundle, tmp_path, threshold):
    with pytest.raises(UsageError, match="threshold"):
        predict_images(bundle, [tmp_path / "a.png"], tmp_path / "out", QUIET, threshold=threshold)


def test_bad_places(bundle, tmp_path):
    draw(tmp_path / "a.png", SIZE)
    with pytest.raises(InputError, match="neither a Bundle nor a run"):
        predict_images(tmp_path, [tmp_path / "a.png"], tmp_path / "out", QUIET)
    with pytest.raises(InputError, match="is a file"):
        predict_images(bundle, [tmp_path / "a.png"], tmp_path / "a.png", QUIET)
    with pytest.raises(UsageError, match="no images"):
        predict_images(bundle, [], tmp_path / "out", QUIET)
    assert not (tmp_path / "out").exists()


def test_the_bundles_predictor_gives_what_the_graph_computes(bundle):
    predictor = bundle_predictor(bundle)
    images = np.random.default_rng(0).random((3, 3, *SIZE)).astype(np.float32)
    assert np.array_equal(predictor(images), images[:, 1])
    assert (predictor.size, predictor.threshold, predictor.runtime) == (SIZE, 0.5, "onnxruntime")
    assert predictor.note == ""
    with pytest.raises(Unsupported, match="input"):
        predictor(np.zeros((1, 3, 16, 16), np.float32))


def test_prediction_and_evaluation_give_the_same_masks(bundle, tmp_path, squares):
    index = 4
    image, truth = squares.read(index)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert np.array_equal(open_image(tmp_path / "a.png"), image)
    (row,) = predict_images(bundle, [tmp_path / "a.png"], tmp_path / "out", QUIET)
    found = evaluate(bundle_predictor(bundle), squares, [index], SIZE, QUIET, split="patient")
    assert row["foreground_pixels"] == found.slices[0].predicted
    mask = np.asarray(Image.open(row["mask"])) == 255
    assert found.slices[0].true_positive == (mask & (truth == 1)).sum()


def test_nan_is_an_error_and_leaves_nothing(bundle, tmp_path):
    draw(tmp_path / "a.png", SIZE)
    Image.new("RGB", (50, 40), (9, 9, 9)).save(tmp_path / "flat.png")
    with pytest.raises(VerificationError, match=r"flat\.png"):
        predict_images(bundle, [tmp_path / "a.png", tmp_path / "flat.png"], tmp_path / "out", QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "flat.png"]
