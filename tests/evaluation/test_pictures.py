"""Strips: right size, right colours at the right pixels, readable by Pillow, small enough to embed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from edgemamba.console import Console
from edgemamba.data import open_dataset
from edgemamba.evaluation import pictures
from edgemamba.evaluation.evaluate import evaluate
from edgemamba.evaluation.pictures import case_pictures, write_pictures

QUIET = Console(quiet=True)
SIZE = (16, 20)


def panel(image: Image.Image, number: int, height: int, width: int) -> np.ndarray:
    """One panel of a strip, brought back to the picture's own pixels."""
    side = 256
    tile = (round(height * side / width), side)
    left = 12 + number * (tile[1] + 12)
    pixels = np.asarray(image)[30 : 30 + tile[0], left : left + tile[1]]
    rows = ((np.arange(height) + 0.5) * tile[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * tile[1] / width).astype(int)
    return pixels[rows][:, columns]


def painted(pixels: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return (pixels == color).all(axis=2)


def test_error_panel_paints_found_missed_and_false(squares, plane):
    evaluation = evaluate(plane(1), squares, range(30), SIZE, QUIET, split="patient")
    case = next(one for one in evaluation.slices if (one.height, one.width) == SIZE and one.true_positive)
    (picture,) = case_pictures(plane(1), squares, evaluation, [case])
    truth, mask = (squares.planes(case.index)[:, :, channel] == 1 for channel in (0, 1))
    error = panel(picture.image, 3, *SIZE)
    assert np.array_equal(painted(error, pictures.SKY), truth & mask)
    assert np.array_equal(painted(error, pictures.YELLOW), truth & ~mask)
    assert np.array_equal(painted(error, pictures.VERMILION), mask & ~truth)
    assert case.id in picture.caption
    assert f"{case.dice:.3f}" in picture.caption
    assert picture.image.width == 4 * 256 + 5 * 12


def test_files_and_thumbnails(tmp_path, plane):
    dataset = open_dataset("phantoms")
    predict = plane(1)
    evaluation = evaluate(predict, dataset, range(40, 52), (64, 64), QUIET, 0.6, split="image")
    cases = [*evaluation.examples().values(), *evaluation.largest_false_alarms(1)]
    found = case_pictures(predict, dataset, evaluation, cases)
    paths = write_pictures(found, tmp_path / "worst")
    assert [path.name[:3] for path in paths] == [f"{number:02d}-" for number in range(1, len(cases) + 1)]
    for path, picture in zip(paths, found, strict=True):
        with Image.open(path) as written:
            assert (written.format, written.size) == ("PNG", picture.image.size)
        thumbnail = picture.thumbnail(600)
        with Image.open(io.BytesIO(thumbnail)) as small:
            assert (small.format, small.width) == ("WEBP", 600)
        assert len(thumbnail) < 40_000


@pytest.mark.parametrize(
    ("true", "predicted", "verdict"),
    [(0, 0, "none predicted"), (0, 5, "false alarm"), (9, 0, "missed altogether"), (9, 9, "Dice 1.000")],
)
def test_titles_say_what_happened(squares, true, predicted, verdict):
    def predict(images):
        found = np.zeros_like(images[:, 0])
        found[:, 0, :predicted] = 1
        return found

    class Plain(type(squares)):
        def planes(self, _index):
            planes = np.zeros((12, 16, 3), np.uint8)
            planes[0, :true, 0] = 1
            return planes

    evaluation = evaluate(predict, Plain(), [0], (12, 16), QUIET, split="patient")
    (picture,) = case_pictures(predict, Plain(), evaluation, evaluation.slices)
    assert verdict in picture.caption


def test_names_are_safe_for_files(squares, plane, tmp_path):
    import dataclasses

    squares.samples = tuple(dataclasses.replace(one, id=f"../größe/{one.id}") for one in squares.samples)
    evaluation = evaluate(plane(1), squares, [1], SIZE, QUIET, split="patient")
    (path,) = write_pictures(case_pictures(plane(1), squares, evaluation, evaluation.slices), tmp_path)
    assert path.parent == tmp_path
    assert path.name.isascii()
