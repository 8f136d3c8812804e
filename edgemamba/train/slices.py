"""Pictures of validation slices with truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemamba.train.drawing import FAINT, INK, SCALE, Colour, canvas, finish, font, legend
from edgemamba.train.plots import BLUE, save_picture

CORRECT: Colour = (0, 190, 130)
MISSED: Colour = (255, 196, 0)
FALSE: Colour = (232, 40, 130)

_SAMPLES_EACH = 2
_PANEL = 256


def choose(dice: NDArray[np.floating[Any]], false_pixels: NDArray[np.integer[Any]]) -> list[tuple[str, int]]:
    """Slices worth a look: best, median and worst of those with tumour, and the most false pixels without.

    Args:
        dice: (N), NaN where a slice has no tumour.
        false_pixels: (N).

    Returns:
        name and index of each, no index twice.
    """
    ranked = [int(i) for i in np.argsort(-dice, kind="stable") if not np.isnan(dice[i])]
    middle = max(0, (len(ranked) - _SAMPLES_EACH) // 2)
    groups = (
        ("best", ranked[:_SAMPLES_EACH]),
        ("worst", ranked[::-1][:_SAMPLES_EACH]),
        ("median", ranked[middle : middle + _SAMPLES_EACH]),
        ("false-alarm", _false_alarms(dice, false_pixels)),
    )
    chosen: dict[int, str] = {}
    for name, indices in groups:
        for place, index in enumerate(indices, start=1):
            chosen.setdefault(index, f"{name}-{place}")
    return sorted((name, index) for index, name in chosen.items())


def _false_alarms(dice: NDArray[np.floating[Any]], false_pixels: NDArray[np.integer[Any]]) -> list[int]:
    wrong = np.where(np.isnan(dice), false_pixels, 0)
    return [int(i) for i in np.argsort(-wrong, kind="stable")[:1] if wrong[i] > 0]


def save_sample(path: Path, packed: NDArray[np.uint8], predicted: NDArray[np.bool_], title: str) -> None:
    """Draw image, truth, prediction and errors of one slice side by side.

    Args:
        path: PNG to write.
        packed: uint8 (4, H, W): image, and the mask as 0 or 255.
        predicted: bool (H, W).
        title: above the pictures.
    """
    picture, truth = packed[:3].transpose(1, 2, 0), packed[3] > 127
    grey = np.repeat(picture[:, :, 1:2], 3, axis=2)
    errors = [(truth & predicted, CORRECT), (truth & ~predicted, MISSED), (predicted & ~truth, FALSE)]
    views = (
        ("image", picture),
        ("truth", tint(grey, [(truth, CORRECT)])),
        ("prediction", tint(grey, [(predicted, BLUE)])),
        ("errors", tint(grey, errors)),
    )
    height = _PANEL * picture.shape[0] // picture.shape[1]
    image, draw = canvas(4 * _PANEL + 5 * 8, height + 74)
    overlap, total = int((truth & predicted).sum()), int(truth.sum() + predicted.sum())
    score = f"Dice {2 * overlap / total:.3f}" if total else "empty, and found empty"
    draw.text((8 * SCALE, 8 * SCALE), f"{title}   {score}", INK, font(14))
    for column, (label, view) in enumerate(views):
        left = 8 + column * (_PANEL + 8)
        draw.text((left * SCALE, 30 * SCALE), label, FAINT, font(12))
        panel = Image.fromarray(view).resize((_PANEL * SCALE, height * SCALE), Image.Resampling.NEAREST)
        image.paste(panel, (left * SCALE, 48 * SCALE))
    entries = [("found", CORRECT), ("missed", MISSED), ("false alarm", FALSE)]
    legend(draw, (8 + 3 * (_PANEL + 8), height + 54), entries)
    save_picture(path, finish(image))


def tint(
    picture: NDArray[np.uint8], layers: Sequence[tuple[NDArray[np.bool_], Colour]], amount: float = 0.6
) -> NDArray[np.uint8]:
    """Mix a colour into the pixels of each mask; picture uint8 (H, W, 3)."""
    mixed = picture.astype(np.float32)
    for mask, colour in layers:
        mixed[mask] = (1 - amount) * mixed[mask] + amount * np.asarray(colour, np.float32)
    return mixed.round().astype(np.uint8)
