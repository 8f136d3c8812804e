"""Pictures of single slices: image, truth, prediction and error side by side, for people who want to see a figure.

Numbers choose the slices (worst, median, best, false alarms); the predictor runs again on those few,
because an evaluation keeps counts and no masks. Colours are Okabe and Ito's, which colour-blind readers can
tell apart.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgemamba.board.images import overlay, to_mask
from edgemamba.evaluation.evaluate import probabilities, read_batches
from edgemamba.files import write_bytes

if TYPE_CHECKING:
    from edgemamba.data.base import Dataset
    from edgemamba.evaluation.evaluate import Evaluation, Pixels, Predict, SliceScore

    Color = tuple[int, int, int]
    Legend = tuple[tuple[Color, str], ...]
    Panel = tuple[str, Pixels]

GREEN: Color = (0, 190, 138)
SKY: Color = (86, 180, 233)
YELLOW: Color = (240, 228, 66)
VERMILION: Color = (230, 100, 20)
_BACKGROUND = (18, 20, 24)
_TEXT = (238, 240, 243)
_MUTED = (160, 166, 175)

_SIDE = 256
_MARGIN = 12
_TITLE = 30
_CAPTION = 24
_LEGEND = 28

# Data sets whose second channel is FLAIR, in which the lesions were outlined.
_FLAIR = ("lgg", "phantoms")


@dataclasses.dataclass(frozen=True)
class Picture:
    """One strip.

    Attributes:
        name: stem for a file name.
        caption: one sentence that says what is seen, for people who cannot see it.
        image: the strip, RGB.
    """

    name: str
    caption: str
    image: Image.Image

    def png(self) -> bytes:
        """The strip as PNG."""
        stream = io.BytesIO()
        self.image.save(stream, "PNG", optimize=True)
        return stream.getvalue()

    def thumbnail(self, width: int = 800) -> bytes:
        """The strip as a WebP of at most ``width`` pixels, about 20 kB, for embedding in a report."""
        image = self.image
        if image.width > width:
            image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=82, method=6)
        return stream.getvalue()


def case_pictures(
    predict: Predict, dataset: Dataset, evaluation: Evaluation, cases: Sequence[SliceScore]
) -> list[Picture]:
    """Image, truth, prediction and error of ``cases``, which are slices of ``evaluation``."""
    found = []
    for case in cases:
        shown, truth, mask = _read(dataset, case.index, evaluation, predict)
        verdict = _verdict(case)
        panels = (
            shown,
            (f"truth, {case.true:,} px", overlay(shown[1], truth, color=GREEN)),
            (f"prediction, {case.predicted:,} px", overlay(shown[1], mask, color=SKY)),
            ("error", _paint(shown[1], truth, mask)),
        )
        legend = ((SKY, "found"), (YELLOW, "missed"), (VERMILION, "false alarm"))
        missed, wrong = case.true - case.true_positive, case.predicted - case.true_positive
        caption = f"{case.id}: {verdict}; lesion {case.true} pixels, missed {missed}, false alarm {wrong}"
        found.append(Picture(_stem(case.id), caption, strip(f"{case.id}    {verdict}", panels, legend)))
    return found


def write_pictures(pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """Write each strip as PNG, numbered in order, and give the paths.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    paths = []
    for number, picture in enumerate(pictures, 1):
        path = folder / f"{number:02d}-{picture.name}.png"
        write_bytes(path, picture.png())
        paths.append(path)
    return paths


def _verdict(case: SliceScore) -> str:
    if case.true and not case.predicted:
        return "lesion missed altogether"
    if case.true:
        return f"Dice {case.dice:.3f}"
    return "no tumour, false alarm" if case.predicted else "no tumour, none predicted"


def _read(dataset: Dataset, index: int, evaluation: Evaluation, *predicts: Predict) -> tuple[Any, ...]:
    """The panel of the image, the true mask, and each predictor's mask, of one slice."""
    batch = next(read_batches(dataset, [index], evaluation.size))
    image, truth = batch.images[0], batch.truths[0]
    height, width = truth.shape
    found = (probabilities(predict, batch, dataset)[0] for predict in predicts)
    masks = (to_mask(probability, evaluation.threshold, (height, width)) for probability in found)
    return shown(image, dataset), truth, *masks


def shown(image: Pixels, dataset: Dataset) -> Panel:
    """A panel for people: FLAIR alone where there is one, with its brightest half per cent at white."""
    if dataset.name not in _FLAIR:
        return "image", image
    channel = image[:, :, 1].astype(np.float32)
    white = max(1.0, float(np.quantile(channel, 0.995)))
    grey = np.clip(channel * (255.0 / white), 0, 255).astype(np.uint8)
    return "FLAIR", np.repeat(grey[:, :, None], 3, axis=2)


def _paint(shown: Pixels, first: Pixels, second: Pixels) -> Pixels:
    """Two masks on a dimmed picture: sky blue both, yellow the first only, vermilion the second only."""
    drawn = (shown * np.float32(0.55)).astype(np.uint8)
    one, other = first != 0, second != 0
    drawn[one & other], drawn[one & ~other], drawn[other & ~one] = SKY, YELLOW, VERMILION
    return drawn


def strip(title: str, panels: Sequence[Panel], legend: Legend) -> Image.Image:
    """Panels side by side under a title, each with its caption, and the legend below the last one."""
    tiles = [_tile(pixels) for _, pixels in panels]
    height = max(tile.height for tile in tiles)
    width = _MARGIN + sum(tile.width + _MARGIN for tile in tiles)
    strip = Image.new("RGB", (width, _TITLE + height + _CAPTION + _LEGEND), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    draw.text((_MARGIN, _TITLE // 2), title, _TEXT, _font(15), anchor="lm")
    left = _MARGIN
    for (caption, _), tile in zip(panels, tiles, strict=True):
        strip.paste(tile, (left, _TITLE))
        draw.text((left, _TITLE + height + _CAPTION // 2), caption, _TEXT, _font(13), anchor="lm")
        left += tile.width + _MARGIN
    right = width - _MARGIN
    middle = _TITLE + height + _CAPTION + _LEGEND // 2 - 4
    for color, text in reversed(legend):
        right -= round(draw.textlength(text, _font(13)))
        draw.text((right, middle), text, _MUTED, _font(13), anchor="lm")
        draw.rectangle((right - 18, middle - 6, right - 6, middle + 6), fill=color)
        right -= 34
    return strip


def _tile(pixels: Pixels) -> Image.Image:
    """A panel with the longer side at 256 pixels; small pictures keep their pixels visible."""
    tile = Image.fromarray(pixels)
    factor = _SIDE / max(tile.size)
    size = (max(1, round(tile.width * factor)), max(1, round(tile.height * factor)))
    return tile.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _stem(name: str) -> str:
    """A sample's id as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "slice"
