"""The LGG layout, in files as the public archive has them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.samples import blob, picture
from edgemamba.data import data_ref, open_dataset, open_ref, split_dataset
from edgemamba.errors import InputError
from edgemamba.files import sha256_json

FIRST = "TCGA_XX_0000_20010101"


def test_folder_of_the_archive_and_those_around_it_are_the_same_set(lgg_root: Path, tmp_path: Path) -> None:
    around = tmp_path / "archive"
    shutil.copytree(lgg_root, around / "lgg-mri-segmentation")
    sets = [open_dataset("lgg", root) for root in (lgg_root, lgg_root / "kaggle_3m", around)]
    assert len({dataset.samples for dataset in sets}) == 1
    assert len({dataset.fingerprint() for dataset in sets}) == 1
    assert len(sets[0].samples) == 24


def test_samples_are_ordered_by_patient_and_slice_number(lgg_root: Path) -> None:
    samples = open_dataset("lgg", str(lgg_root)).samples
    assert [sample.number for sample in samples[:4]] == [1, 2, 10, 11]
    assert samples[2].id == f"{FIRST}_10"
    assert samples[2].patient == FIRST


def test_pixels_keep_their_channels_and_masks_become_0_and_1(lgg_root: Path) -> None:
    image, mask = open_dataset("lgg", lgg_root).read(6)
    np.testing.assert_array_equal(image, picture(110))
    np.testing.assert_array_equal(mask, blob(10))


def test_every_split_works_and_is_by_name(lgg_root: Path) -> None:
    dataset = open_dataset("lgg", lgg_root)
    order = sorted((sample.id for sample in dataset.samples), key=lambda name: hashlib.sha256(name.encode()).digest())
    split = split_dataset(dataset, "image")
    assert [dataset.samples[index].id for index in split.train] == sorted(
        order[:19], key=lambda name: (name.rsplit("_", 1)[0], int(name.rsplit("_", 1)[1]))
    )
    assert split.leaky
    assert not split_dataset(dataset, "patient").leaky


def test_root_without_the_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"_mask\.tif below it") as caught:
        open_dataset("lgg", tmp_path)
    assert "kaggle_3m" in caught.value.hint
    with pytest.raises(InputError, match="is not a folder"):
        open_dataset("lgg", tmp_path / "nowhere")


def test_images_without_masks_are_counted_and_the_first_named(lgg_root: Path) -> None:
    for number in (1, 2, 10, 11):
        (lgg_root / "kaggle_3m" / FIRST / f"{FIRST}_{number}_mask.tif").unlink()
    with pytest.raises(InputError, match=r"4 images without mask: .*_1\.tif, .*_10\.tif, .*_11\.tif and 1 more"):
        open_dataset("lgg", lgg_root)


def test_masks_without_images(lgg_root: Path) -> None:
    (lgg_root / "kaggle_3m" / FIRST / f"{FIRST}_2.tif").unlink()
    with pytest.raises(InputError, match=r"1 masks without image: .*_2_mask\.tif$"):
        open_dataset("lgg", lgg_root)


def test_foreign_name(lgg_root: Path) -> None:
    Image.fromarray(picture(1)).save(lgg_root / "kaggle_3m" / FIRST / "overview.tif")
    with pytest.raises(InputError, match=r"overview\.tif is not named"):
        open_dataset("lgg", lgg_root)


def test_slice_in_two_patients(lgg_root: Path) -> None:
    shutil.copytree(lgg_root / "kaggle_3m" / FIRST, lgg_root / "kaggle_3m" / "copy")
    with pytest.raises(InputError, match="more than one patient"):
        open_dataset("lgg", lgg_root)


def test_files_that_the_desktop_leaves_are_ignored(lgg_root: Path) -> None:
    before = open_dataset("lgg", lgg_root).samples
    (lgg_root / "kaggle_3m" / FIRST / f"._{FIRST}_1.tif").write_bytes(b"x")
    (lgg_root / "kaggle_3m" / FIRST / "Thumbs.db").write_bytes(b"x")
    assert open_dataset("lgg", lgg_root).samples == before


def test_mask_of_another_size(lgg_root: Path) -> None:
    Image.fromarray(blob(1, 20, 30)).save(lgg_root / "kaggle_3m" / FIRST / f"{FIRST}_1_mask.tif")
    with pytest.raises(InputError, match=r"_1_mask\.tif is 30x20, its image .*_1\.tif is 24x20 pixels"):
        open_dataset("lgg", lgg_root).read(0)


def test_truncated_slice(lgg_root: Path) -> None:
    path = lgg_root / "kaggle_3m" / FIRST / f"{FIRST}_1.tif"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"_1\.tif is damaged or truncated") as caught:
        open_dataset("lgg", lgg_root).read(0)
    assert caught.value.hint


def test_fingerprint_follows_content(lgg_root: Path) -> None:
    before = open_dataset("lgg", lgg_root).fingerprint()
    path = lgg_root / "kaggle_3m" / FIRST / f"{FIRST}_1_mask.tif"
    Image.fromarray(blob(2) * 255).save(path)
    assert open_dataset("lgg", lgg_root).fingerprint() != before


def test_only_the_whole_public_set_counts_as_published(lgg_root: Path) -> None:
    assert not open_dataset("lgg", lgg_root).published()


def test_the_public_set_is_taken_in_another_encoding(lgg_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset("lgg", lgg_root)
    ref = data_ref(dataset, split_dataset(dataset, "image")).model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(InputError, match="not what was recorded"):
        open_ref(ref)
    names = sha256_json(sorted(sample.id for sample in dataset.samples))
    monkeypatch.setattr("edgemamba.data.lgg._PUBLISHED", names)
    again, _ = open_ref(ref)
    assert again.label == "lgg (in another encoding than recorded)"
