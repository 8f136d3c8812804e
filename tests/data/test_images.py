"""Decoding, resizing and drawing, against arithmetic written out here and files of every format."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.samples import UInt8, blob, picture
from edgemamba.board import images

LOSSLESS = {
    "a.png": {},
    "a.tif": {},
    "b.tiff": {"compression": "tiff_lzw"},
    "c.tif": {"compression": "tiff_deflate"},
    "a.bmp": {},
    "a.webp": {"lossless": True},
    "a.ppm": {},
}
EVERY = {**LOSSLESS, "a.jpg": {"quality": 95}, "b.jpeg": {"progressive": True}, "a.gif": {}}


def encoded(name: str, pixels: UInt8) -> bytes:
    stream = io.BytesIO()
    kind = Image.registered_extensions()[Path(name).suffix]
    Image.fromarray(pixels).save(stream, kind, **EVERY[name])
    return stream.getvalue()


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_give_the_same_pixels(tmp_path: Path, name: str) -> None:
    pixels = picture(1)
    (tmp_path / name).write_bytes(encoded(name, pixels))
    read = images.open_image(tmp_path / name)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels)


def test_lossy_formats_stay_close(tmp_path: Path) -> None:
    smooth = np.repeat(np.arange(64, dtype=np.uint8)[:, None, None] * np.uint8(3), 64, axis=1).repeat(3, axis=2)
    for name in ("a.jpg", "b.jpeg", "a.gif"):
        (tmp_path / name).write_bytes(encoded(name, smooth))
        difference = images.open_image(str(tmp_path / name)).astype(int) - smooth
        assert np.abs(difference).max() <= 6


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated_file_is_one_clear_error(tmp_path: Path, name: str, kept: float) -> None:
    data = encoded(name, picture(2, 90, 90))
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(images.ImageError) as caught:
        images.open_image(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(EVERY)),
    damage=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), max_size=5),
)
def test_damaged_bytes_give_pixels_or_an_image_error(
    tmp_path: Path, name: str, damage: list[tuple[float, bytes]]
) -> None:
    data = bytearray(encoded(name, picture(3)))
    for place, new in damage:
        start = int(place * (len(data) - 1))
        data[start : start + len(new)] = new
    path = tmp_path / name
    path.write_bytes(bytes(data))
    try:
        read = images.open_image(path)
    except images.ImageError as error:
        assert str(path) in error.message
    else:
        assert read.dtype == np.uint8
        assert read.ndim == 3


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b"hello, this is text", "not an image"), (None, "does not exist")]
)
def test_no_image(tmp_path: Path, content: bytes | None, word: str) -> None:
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(images.ImageError, match=word):
        images.open_image(path)


def test_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(images.ImageError, match="is a folder"):
        images.open_image(tmp_path)


def test_formats_that_run_other_programs_are_not_opened(tmp_path: Path) -> None:
    Image.fromarray(picture(1)).save(tmp_path / "a.eps")
    with pytest.raises(images.ImageError, match="not an image that can be read"):
        images.open_image(tmp_path / "a.eps")


def test_huge_image_is_refused_by_its_header(tmp_path: Path) -> None:
    small = encoded("a.bmp", picture(1, 8, 8))
    for side in (9_000, 60_000):
        header = bytearray(small)
        header[18:26] = side.to_bytes(4, "little") * 2
        path = tmp_path / "bomb.bmp"
        path.write_bytes(header)
        with pytest.raises(images.ImageError, match="64,000,000"):
            images.open_image(path)


def test_animation_and_pages_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(seed)) for seed in (1, 2, 3)]
    for name in ("a.gif", "a.tif", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(images.ImageError, match="holds 3 pictures"):
            images.open_image(tmp_path / name)


def test_grey_is_repeated_and_palette_resolved(tmp_path: Path) -> None:
    grey = picture(4)[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(images.open_image(tmp_path / "grey.png"), np.stack([grey] * 3, axis=2))
    indices = Image.fromarray((grey % 2).astype(np.uint8), "L")
    indices.putpalette([10, 20, 30, 200, 100, 50])
    indices.save(tmp_path / "palette.png")
    expected = np.where((grey % 2)[:, :, None] == 1, [200, 100, 50], [10, 20, 30])
    np.testing.assert_array_equal(images.open_image(tmp_path / "palette.png"), expected)
    Image.fromarray(grey > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(images.open_image(tmp_path / "bits.png")[:, :, 1], (grey > 99) * 255)


def test_transparency_lies_on_black(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 4), 200, np.uint8)
    pixels[:2, :, 3] = 0
    pixels[2:, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = images.open_image(tmp_path / "a.png")
    assert read[:2].max() == 0
    assert (read[2:] == 200).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_grey_fills_the_range(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 1000], [2000, 4000]], np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    expected = np.floor(values / 4000 * 255 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(images.open_image(tmp_path / name)[:, :, 0], expected)


def test_float_and_signed_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)).save(path)
    np.testing.assert_array_equal(images.open_image(path)[:, :, 2], [[0, 64], [128, 255]])
    Image.fromarray(np.array([[-100, 0], [50, 100]], np.int32)).save(path)
    np.testing.assert_array_equal(images.open_image(path)[:, :, 2], [[0, 128], [191, 255]])
    Image.fromarray(np.zeros((2, 2), np.float32)).save(path)
    assert images.open_image(path).max() == 0
    Image.fromarray(np.array([[0.0, np.nan]], np.float32)).save(path)
    with pytest.raises(images.ImageError, match="not finite"):
        images.open_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "b.tiff", "a.webp"])
def test_exif_orientation_is_applied(tmp_path: Path, name: str) -> None:
    pixels = picture(5, 6, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / name, exif=exif, **EVERY[name])
    np.testing.assert_array_equal(images.open_image(tmp_path / name), np.rot90(pixels, -1))


def test_input_of_the_same_size_is_exact() -> None:
    pixels = picture(6, 32, 48)
    tensor = images.to_input(pixels, (32, 48), 1 / 255)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor[0], pixels.transpose(2, 0, 1).astype(np.float32) * np.float32(1 / 255))


def bilinear(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Triangle-filter resampling along one axis in float64, widened when shrinking."""
    length = values.shape[axis]
    ratio = length / count
    width = max(1.0, ratio)
    centers = (np.arange(count) + 0.5) * ratio
    weights = np.maximum(0.0, 1.0 - np.abs((np.arange(length) + 0.5 - centers[:, None]) / width))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.moveaxis(np.tensordot(weights, values.astype(np.float64), (1, axis)), 0, axis)


sides = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 9))
def test_resize_is_the_triangle_filter(height: int, width: int, h: int, w: int, seed: int) -> None:
    pixels = picture(seed, height, width)
    expected = bilinear(bilinear(pixels, w, 1), h, 0)
    tensor = images.to_input(pixels, (h, w), 1.0)
    assert tensor.shape == (1, 3, h, w)
    assert np.abs(tensor[0].transpose(1, 2, 0) - expected).max() <= 1.01  # two roundings to 8 bits


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 9), st.sampled_from([0.3, 0.5, 0.7]))
def test_mask_is_the_resized_probability_compared(
    h: int, w: int, height: int, width: int, seed: int, threshold: float
) -> None:
    probability = np.random.default_rng(seed).random((h, w), dtype=np.float32)
    mask = images.to_mask(probability, threshold, (height, width))
    assert mask.shape == (height, width)
    assert mask.dtype == np.uint8
    smooth = bilinear(bilinear(probability, width, 1), height, 0)
    sure = np.abs(smooth - threshold) > 1e-5
    np.testing.assert_array_equal(mask[sure], (smooth >= threshold)[sure])


def test_threshold_itself_is_inside() -> None:
    assert images.to_mask(np.full((2, 2), 0.5, np.float32), 0.5, (2, 2)).all()


def test_nearest_mask_keeps_two_values_and_its_place() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 4:8] = 1
    np.testing.assert_array_equal(images.resize_mask(mask, (16, 16)), mask.repeat(2, axis=0).repeat(2, axis=1))
    assert images.resize_mask(mask, (8, 8)) is mask


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(images.ImageError, match="must be uint8"):
        images.to_input(np.zeros((4, 4), np.uint8), (4, 4), 1.0)
    with pytest.raises(images.ImageError, match="must be uint8"):
        images.to_input(np.zeros((4, 4, 3), np.float32), (4, 4), 1.0)
    with pytest.raises(images.ImageError, match="probability"):
        images.to_mask(np.zeros((1, 4, 4), np.float32), 0.5, (4, 4))
    with pytest.raises(images.ImageError, match="the mask is"):
        images.overlay(picture(1), np.zeros((3, 3), np.uint8))


def test_overlay_tints_inside_and_leaves_the_rest() -> None:
    pixels = picture(7)
    mask = blob(4)
    before = pixels.copy()
    drawn = images.overlay(pixels, mask, color=(0, 255, 0), opacity=0.5)
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(drawn[mask == 0], pixels[mask == 0])
    edge = images.outline(mask)
    assert edge[2, 3]
    assert not edge[4, 6]
    assert (drawn[edge] == (0, 255, 0)).all()
    core = (mask == 1) & ~edge
    np.testing.assert_array_equal(drawn[core], np.rint(pixels[core] * 0.5 + np.array([0, 127.5, 0])))


def test_saved_mask_is_0_and_255_and_leaves_nothing_else(tmp_path: Path) -> None:
    images.save_mask(tmp_path / "m.png", blob(4))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "m.png")), blob(4) * 255)
    images.save_image(tmp_path / "i.png", picture(1))
    np.testing.assert_array_equal(images.open_image(tmp_path / "i.png"), picture(1))
    with pytest.raises(OSError, match="No such file"):
        images.save_mask(tmp_path / "missing" / "m.png", blob(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i.png", "m.png"]
