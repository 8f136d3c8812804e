"""A user's own pairs, good and bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.samples import UInt8, blob, picture
from edgemamba.board import images
from edgemamba.data import open_dataset, split_dataset
from edgemamba.data.pairs import read_mask
from edgemamba.errors import InputError, UsageError

Make = Callable[..., Path]


@pytest.mark.parametrize("ending", ["", "_mask", "-mask", "_segmentation"])
def test_pairs_by_stem_in_natural_order(make_folder: Make, ending: str) -> None:
    dataset = open_dataset("folder", make_folder(["b2", "b10", "a1"], ending=ending))
    assert [sample.id for sample in dataset.samples] == ["a1", "b10", "b2"]
    image, mask = dataset.read(1)
    np.testing.assert_array_equal(image, picture(1))
    np.testing.assert_array_equal(mask, blob(1))
    assert not dataset.grouped


def test_images_of_different_kinds_and_sizes(make_folder: Make) -> None:
    root = make_folder([])
    for seed, (image, mask) in enumerate(
        [("a.JPG", "a.gif"), ("b.tif", "b.tiff"), ("c.bmp", "c.bmp"), ("d.webp", "d_mask.png")]
    ):
        Image.fromarray(picture(seed, 10 + seed, 30)).save(root / "images" / image)
        Image.fromarray(blob(seed, 10 + seed, 30) * (255 if seed % 2 else 1)).save(root / "masks" / mask)
    dataset = open_dataset("folder", root)
    for index in range(4):
        image, mask = dataset.read(index)
        assert image.shape == (10 + index, 30, 3)
        np.testing.assert_array_equal(mask, blob(index, 10 + index, 30))


@pytest.mark.parametrize("group", ["_", "^([^_]+)_", "(?:x|)(p[0-9]+)"])
def test_group_makes_patients(make_folder: Make, group: str) -> None:
    stems = [f"p{patient}_{number}" for patient in range(6) for number in (1, 2, 10)]
    dataset = open_dataset("folder", make_folder(stems), group=group)
    assert {sample.patient for sample in dataset.samples} == {f"p{patient}" for patient in range(6)}
    assert [(sample.id, sample.number) for sample in dataset.samples[:3]] == [
        ("p0_1", 0),
        ("p0_2", 1),
        ("p0_10", 2),
    ]
    assert dataset.options == {"group": group}
    split = split_dataset(dataset, "patient")
    assert not split.leaky
    assert len(split.test) in (3, 6)


@pytest.mark.parametrize(
    ("group", "error", "match"),
    [
        ("-", InputError, "fits none of 6 file names: p0, p1, p2 and 3 more"),
        ("(q)", InputError, "fits none of 6"),
        ("p(x?)", InputError, "fits none of 6"),
        ("", UsageError, "empty"),
        ("(p", UsageError, "not a regular expression"),
        ("(?:p)", UsageError, "captures nothing"),
    ],
)
def test_group_that_does_not_fit(make_folder: Make, group: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        open_dataset("folder", make_folder([f"p{k}" for k in range(6)]), group=group)


def test_root_without_the_layout(tmp_path: Path, make_folder: Make) -> None:
    with pytest.raises(InputError, match="has no folders images/ and masks/"):
        open_dataset("folder", tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        open_dataset("folder", tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no images"):
        open_dataset("folder", make_folder([]))


def test_missing_partners_are_counted_and_named(make_folder: Make) -> None:
    root = make_folder([f"s{k}" for k in range(6)])
    for k in (1, 2, 3, 4):
        (root / "masks" / f"s{k}.png").unlink()
    with pytest.raises(InputError, match=r"4 images without mask: .*s1\.png, .*s2\.png, .*s3\.png and 1 more"):
        open_dataset("folder", root)
    for k in (0, 1, 2, 3, 4):
        (root / "images" / f"s{k}.png").unlink()
    with pytest.raises(InputError, match=r"1 masks without image: .*s0\.png$"):
        open_dataset("folder", root)


def test_equal_stems(make_folder: Make) -> None:
    root = make_folder(["a", "b"])
    Image.fromarray(picture(1)).save(root / "images" / "a.bmp")
    with pytest.raises(InputError, match=r"a\.bmp and a\.png, of equal stem"):
        open_dataset("folder", root)


def test_two_masks_of_one_image(make_folder: Make) -> None:
    root = make_folder(["a"])
    Image.fromarray(blob(1)).save(root / "masks" / "a_mask.png")
    with pytest.raises(InputError, match=r"has two masks, a\.png and a_mask\.png"):
        open_dataset("folder", root)


def test_other_files_are_left_alone(make_folder: Make) -> None:
    root = make_folder(["a", "b"])
    (root / "images" / "notes.txt").write_text("x")
    (root / "images" / ".hidden.png").write_bytes(b"x")
    (root / "masks" / "old.png").mkdir()
    assert len(open_dataset("folder", root).samples) == 2


def test_damaged_files_and_sizes(make_folder: Make) -> None:
    root = make_folder(["a", "b", "c"])
    (root / "images" / "a.png").write_bytes(b"not a picture")
    data = (root / "masks" / "b.png").read_bytes()
    (root / "masks" / "b.png").write_bytes(data[: len(data) // 2])
    Image.fromarray(blob(1, 5, 5)).save(root / "masks" / "c.png")
    dataset = open_dataset("folder", root)
    for index, match in enumerate(
        ["a.png is not an image", "b.png is damaged", "c.png is 5x5, its image c.png is 24x20"]
    ):
        with pytest.raises(InputError, match=match):
            dataset.read(index)


binary = st.integers(1, 12).flatmap(
    lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=12)
)


@given(
    binary,
    st.sampled_from([1, 255]),
    st.sampled_from(["png", "gif", "tif", "bmp", "1", "rgb", "la", "16", "float"]),
)
def test_masks_of_every_kind(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[bool]], high: int, kind: str
) -> None:
    truth = np.array(rows, np.uint8)
    values = truth * np.uint8(high)
    path = tmp_path_factory.getbasetemp() / f"mask.{kind if kind in ('png', 'gif', 'bmp') else 'tif'}"
    pictures: dict[str, Callable[[], Image.Image]] = {
        "1": lambda: Image.fromarray(truth > 0),
        "rgb": lambda: Image.fromarray(np.repeat(values[:, :, None], 3, axis=2)),
        "la": lambda: Image.fromarray(np.stack([values, np.full_like(values, 255)], axis=2)),
        "16": lambda: Image.fromarray(values.astype(np.uint16)),
        "float": lambda: Image.fromarray(values.astype(np.float32)),
    }
    pictures.get(kind, lambda: Image.fromarray(values))().save(path)
    np.testing.assert_array_equal(read_mask(path), truth)


def test_palette_mask_counts_by_grey_colours_else_by_index(tmp_path: Path) -> None:
    truth = blob(4)
    inverted = Image.fromarray(1 - truth, "L").convert("P")
    inverted.putpalette([255, 255, 255, 0, 0, 0])
    inverted.save(tmp_path / "inverted.gif")
    np.testing.assert_array_equal(read_mask(tmp_path / "inverted.gif"), truth)
    labels = Image.fromarray(truth, "L").convert("P")
    labels.putpalette([0, 0, 0, 128, 0, 0])
    labels.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "labels.png"), truth)


def colors() -> UInt8:
    return np.stack([blob(1) * 255, blob(2) * 255, blob(4) * 255], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (blob(1) * 128, "beside 0 it has 128"),
        (np.arange(6, dtype=np.uint8)[None] * np.uint8(51), r"51, 102, 153, 204, \.\.\."),
        (blob(1).astype(np.uint16) * 65535, "beside 0 it has 65535"),
        (np.array([[0, 1, 255]], np.uint8), "beside 0 it has 1, 255"),
        (colors(), "is a colour image"),
    ],
)
def test_masks_of_other_values(tmp_path: Path, values: np.ndarray, match: str) -> None:
    Image.fromarray(values).save(tmp_path / "m.png")
    with pytest.raises(images.ImageError, match=match):
        read_mask(tmp_path / "m.png")


def test_a_lossy_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(blob(4) * 255).save(tmp_path / "m.jpg")
    with pytest.raises(images.ImageError, match="not a mask of 0 and 1 or 0 and 255") as caught:
        read_mask(tmp_path / "m.jpg")
    assert "without loss" in caught.value.hint
