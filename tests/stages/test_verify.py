"""Verification lets equal artifacts through and stops the others, with numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgemamba.errors import Unsupported, VerificationError
from edgemamba.sources import TrainedSource
from edgemamba.stages.artifact import Artifact, open_artifact
from edgemamba.stages.calibration import ImageSet
from edgemamba.stages.onnx_graph import initializers
from edgemamba.stages.verify import judge, reference, run_artifact, verify
from edgemamba.tasks import rules_of

RULES = rules_of("segmentation")


def maps(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)[:, None, :]


def test_numbers_of_a_comparison() -> None:
    expected = maps([0.9, 0.6, 0.4, 0.1], [0.1, 0.2, 0.3, 0.4])
    found = maps([0.9, 0.4, 0.4, 0.1], [0.1, 0.2, 0.3, 0.5])
    numbers = RULES.compare(expected, found)
    assert numbers["mean_abs_diff"] == pytest.approx(0.3 / 8)
    assert numbers["max_abs_diff"] == pytest.approx(0.2)
    assert (numbers["flipped_pixels"], numbers["pixels"]) == (2, 8)
    assert numbers["mask_agreement"] == 0.75
    assert numbers["mask_dice"] == pytest.approx(2 * 1 / (2 + 2))
    assert (numbers["images"], numbers["foreground_images"]) == (2, 1)


def test_masks_without_any_foreground_have_no_dice() -> None:
    assert RULES.compare(maps([0.1, 0.2]), maps([0.3, 0.2]))["mask_dice"] is None


def test_bars_by_precision() -> None:
    assert (RULES.bars["fp32"].mean_diff, RULES.bars["fp32"].agreement) == (1e-6, 0.99999)
    assert (RULES.bars["fp16"].agreement, RULES.bars["int8"].agreement) == (0.999, 0.98)
    expected = maps([0.9] * 100 + [0.1] * 900)
    found = expected.copy()
    found[0, 0, :5] = 0.4
    numbers = RULES.compare(expected, found)
    judge({**numbers, "mask_dice": 0.985}, "int8", "model.onnx", RULES)
    with pytest.raises(VerificationError, match=r"mask Dice 0\.97"):
        judge(numbers, "int8", "model.onnx", RULES)
    with pytest.raises(VerificationError, match=r"mask agreement 0\.995"):
        judge(numbers, "fp32", "model.onnx", RULES)
    with pytest.raises(VerificationError, match=r"mean difference 4.00e-06 \(at most 1e-06\)"):
        judge({**RULES.compare(expected, expected), "mean_abs_diff": 4e-6}, "fp32", "model.onnx", RULES)


def test_not_a_number_fails_every_precision() -> None:
    found = maps([float("nan"), 0.9])
    numbers = RULES.compare(maps([0.9, 0.9]), found)
    assert numbers["mean_abs_diff"] is None
    for precision in RULES.bars:
        with pytest.raises(VerificationError, match="not finite"):
            judge({**numbers, "mask_dice": 1.0, "mask_agreement": 1.0}, precision, "model.onnx", RULES)


def test_export_passes_on_real_weights(fp32: Artifact, source: TrainedSource, images: ImageSet) -> None:
    numbers = verify(fp32, source, images, "fp32")
    assert numbers["mean_abs_diff"] <= 1e-6 and numbers["mask_agreement"] >= 0.99999
    assert numbers["images"] == len(images) == 32
    assert numbers["data"] == images.origin and numbers["images_sha256"] == images.sha256
    assert numbers["foreground_images"] > 5


def test_reference_and_artifact_are_two_computations(fp32: Artifact, source: TrainedSource, images: ImageSet) -> None:
    expected = reference(source, images)
    found = run_artifact(fp32, images, expected, RULES)
    assert expected.shape == found.shape == (32, 64, 64)
    assert not np.array_equal(expected, found)


def test_changed_weight_is_caught(
    graph: onnx.ModelProto, source: TrainedSource, images: ImageSet, tmp_path: Path
) -> None:
    weight = initializers(graph.graph)["final.weight"]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.001), weight.name))
    onnx.save(graph, tmp_path / "model.onnx")
    artifact = open_artifact(tmp_path / "model.onnx", "onnx", "fp32", {})
    with pytest.raises(VerificationError, match="does not match fp32 PyTorch on 32 images") as caught:
        verify(artifact, source, images, "fp32")
    assert "\n" not in caught.value.message and caught.value.hint


def test_file_the_runtime_refuses(source: TrainedSource, images: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    artifact = open_artifact(tmp_path / "model.onnx", "onnx", "fp32", {})
    with pytest.raises(Unsupported, match=r"cannot load model\.onnx"):
        run_artifact(artifact, images, np.zeros((1, *source.size), np.float32), RULES)
