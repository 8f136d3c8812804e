"""Bad data and wrong files given to training: one clear error each, before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgemamba.errors import InputError
from edgemamba.models import build
from edgemamba.models.weights import save_weights
from edgemamba.train import resume_config, train
from train.runs import QUIET, tiny


def pairs(root: Path, patients: int = 6, sides: tuple[int, ...] = (32,)) -> Path:
    """Two slices a patient with a bright square as lesion; side lengths take turns."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(2 * patients):
        side = sides[number % len(sides)]
        image = rng.integers(0, 100, (side, side + 8, 3), dtype=np.uint8)
        mask = np.zeros((side, side + 8), np.uint8)
        mask[4:12, 6:14] = 255
        image[mask > 0] = 250
        Image.fromarray(image).save(root / "images" / f"p{number // 2}_{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"p{number // 2}_{number}.png")
    return root


def settings(root: Path) -> dict[str, object]:
    return {"data": "folder", "data_root": root, "data_options": {"group": "_"}, "batch": 4, "epochs": 1}


def test_a_patient_in_two_parts_is_refused_on_a_patient_split(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        pairs(tmp_path / "data" / part, patients=3)
    with pytest.raises(InputError, match=r"the patient p0 of folder is in \w+/ and in \w+/"):
        train(tiny(tmp_path / "out", split="patient", **settings(tmp_path / "data")), QUIET)
    assert not (tmp_path / "out").exists()
    assert train(tiny(tmp_path / "out", split="official", **settings(tmp_path / "data")), QUIET).state == "finished"


def test_images_of_mixed_sizes_are_brought_to_one(tmp_path: Path) -> None:
    root = pairs(tmp_path / "data", sides=(24, 40, 64))
    record = train(tiny(tmp_path / "out", **settings(root)), QUIET)
    assert (record.state, record.size) == ("finished", (32, 32))


def test_a_mask_of_another_size_than_its_image_is_named(tmp_path: Path) -> None:
    root = pairs(tmp_path / "data")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(root / "masks" / "p2_4.png")
    with pytest.raises(InputError, match=r"p2_4\.png is 16x16, its image p2_4\.png is 40x32 pixels"):
        train(tiny(tmp_path / "out", split="image", **settings(root)), QUIET)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_network(tmp_path: Path) -> None:
    save_weights(tmp_path / "v2.safetensors", build("ul-vm-unet-v2"), {"model": "ul-vm-unet-v2"})
    with pytest.raises(InputError, match="holds the weights of ul-vm-unet-v2") as caught:
        train(tiny(tmp_path / "out", weights=tmp_path / "v2.safetensors"), QUIET)
    assert caught.value.hint == "choose --model ul-vm-unet-v2"
    assert not (tmp_path / "out").exists()


def test_the_state_of_another_network(tmp_path: Path) -> None:
    for model in ("ul-vm-unet", "ul-vm-unet-v2", "ultralbm-unet"):
        train(tiny(tmp_path / model, model=model, epochs=1), QUIET)
    run = tmp_path / "ul-vm-unet"
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"state": "finished"', '"state": "interrupted"'))
    for other, told in (("ul-vm-unet-v2", r"\S+ is \(\d+, \d+\), expected"), ("ultralbm-unet", r"average/\S+$")):
        shutil.copy(tmp_path / other / "state" / "last.safetensors", run / "state" / "last.safetensors")
        with pytest.raises(InputError, match=f"the training state does not fit the network: {told}"):
            train(resume_config(run), QUIET)
