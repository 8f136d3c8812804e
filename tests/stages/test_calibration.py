"""Which images calibrate and which verify: the right split, enough foreground, the same every time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemamba.data import open_dataset, open_ref
from edgemamba.errors import InputError, UsageError
from edgemamba.sources import TrainedSource
from edgemamba.stages import calibration as module
from edgemamba.stages.calibration import CalibrationSet, calibration_set, verification_set


def moved(source: TrainedSource, **changes: Any) -> TrainedSource:
    """The source with another data record."""
    run = source.run.model_copy(update={"data": source.run.data.model_copy(update=changes)})
    return dataclasses.replace(source, run=run)


def test_calibration_images_are_of_the_training_split_and_half_show_foreground(
    source: TrainedSource, calibration: CalibrationSet
) -> None:
    dataset, split = open_ref(source.data)
    ids = {dataset.samples[index].id for index in split.train}
    assert len(calibration) == 16 and set(calibration.ids) <= ids and len(set(calibration.ids)) == 16
    assert calibration.facts == {"with_foreground": 8}
    # The first image seeds LiteRT's moving average.
    assert calibration.truths[0].any()
    assert calibration.truths.any(axis=(1, 2)).tolist() == [True, False] * 8


def test_images_come_as_the_network_takes_them(calibration: CalibrationSet) -> None:
    images = list(calibration)
    assert {(image.shape, image.dtype) for image in images} == {((1, 3, 64, 64), np.dtype(np.float32))}
    np.testing.assert_allclose(images[3][0], calibration.images[3] / 255.0, atol=1e-7)


def test_seed_decides_and_hash_tells(source: TrainedSource, calibration: CalibrationSet) -> None:
    again, other = calibration_set(source, 16), calibration_set(source, 16, 1)
    assert again.ids == calibration.ids and again.sha256 == calibration.sha256
    assert other.ids != calibration.ids and other.sha256 != calibration.sha256
    changed = calibration.images.copy()
    changed[0, 0, 0, 0] ^= 1
    assert CalibrationSet(changed, calibration.truths, calibration.ids, "").sha256 != calibration.sha256


def test_more_than_there_are_gives_what_keeps_the_balance(source: TrainedSource) -> None:
    everything = calibration_set(source, 10_000)
    assert everything.facts["with_foreground"] * 2 >= len(everything) > 16


def test_set_without_foreground_is_refused(source: TrainedSource, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, split = open_ref(source.data)

    def blank(index: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = type(dataset).read(dataset, index)
        return image, np.zeros_like(mask)

    monkeypatch.setattr(dataset, "read", blank)
    monkeypatch.setattr(module, "open_data", lambda *_: (dataset, split))
    with pytest.raises(InputError, match="has foreground"):
        calibration_set(source, 16)


def test_number_of_images_must_be_positive(source: TrainedSource) -> None:
    with pytest.raises(UsageError, match="0 calibration images"):
        calibration_set(source, 0)


def test_verification_images_are_unseen(source: TrainedSource) -> None:
    dataset, split = open_ref(source.data)
    unseen = {dataset.samples[index].id for index in (*split.test, *split.val)}
    images = verification_set(source, 20)
    assert len(images) == 20 and set(images.ids) <= unseen and images.truths.any()
    assert images.origin == "phantoms, test and validation split"
    assert len(verification_set(source, 10_000)) == len(unseen)


def test_missing_data_is_replaced_by_phantoms_and_said(source: TrainedSource, tmp_path: Path) -> None:
    gone = moved(source, name="lgg", root=str(tmp_path / "gone"), options={})
    images = verification_set(gone, 12)
    assert len(images) == 12
    assert images.origin.startswith("phantoms, because the training data is not at hand")
    trained_on = open_dataset("phantoms", size=64)
    pictures = {trained_on.read(index)[0].transpose(2, 0, 1).tobytes() for index in range(24)}
    assert not [image for image in images.images if image.tobytes() in pictures]
    with pytest.raises(InputError):
        calibration_set(gone, 8)
    with pytest.raises(InputError):
        verification_set(gone, 12, data_root=tmp_path)


def test_data_that_moved_is_found_through_the_environment(
    source: TrainedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from edgemamba.data import data_ref, split_dataset

    root = tmp_path / "pairs"
    rng = np.random.default_rng(0)
    for number in range(12):
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            shape = (64, 64, 3) if kind == "images" else (64, 64)
            Image.fromarray(rng.integers(0, 2, shape, dtype=np.uint8) * 255).save(root / kind / f"p{number}.png")
    dataset = open_dataset("folder", root)
    ref = data_ref(dataset, split_dataset(dataset, "image"))
    elsewhere = dataclasses.replace(
        source, run=source.run.model_copy(update={"data": ref.model_copy(update={"root": None})})
    )
    with pytest.raises(InputError):
        calibration_set(elsewhere, 4)
    monkeypatch.setenv("EDGEMAMBA_DATA", str(root))
    assert len(calibration_set(elsewhere, 4)) == 4
    monkeypatch.delenv("EDGEMAMBA_DATA")
    assert len(calibration_set(elsewhere, 4, data_root=root)) == 4
