"""Pictures of a run: its curves, and some validation slices with truth and prediction."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemamba.files import write_bytes
from edgemamba.train.drawing import FAINT, INK, SCALE, Colour, Line, canvas, chart, finish, font, legend
from edgemamba.train.history import Row, best

BLUE: Colour = (0, 105, 180)
ORANGE: Colour = (224, 120, 0)
GREEN: Colour = (0, 140, 100)

CORRECT: Colour = (0, 190, 130)
MISSED: Colour = (255, 196, 0)
FALSE: Colour = (232, 40, 130)

_SAMPLES_EACH = 2
_PANEL = 256


def save_curves(path: Path, rows: Sequence[Row], title: str) -> None:
    """Draw loss, Dice and learning rate over the epochs as one PNG."""
    epochs = [float(row.epoch) for row in rows]
    image, draw = canvas(1080, 360)
    draw.text((16 * SCALE, 12 * SCALE), title, INK, font(15))
    top = best(rows)
    if top is not None and top.val_dice_pooled is not None:
        text = f"best validation Dice {top.val_dice_pooled:.4f} at epoch {top.epoch}"
        draw.text((1064 * SCALE, 14 * SCALE), text, FAINT, font(12), anchor="ra")
    loss = [
        Line("training", BLUE, epochs, [row.train_loss for row in rows]),
        Line("validation", ORANGE, epochs, [row.val_loss for row in rows]),
    ]
    dice = [
        Line("training", BLUE, epochs, [row.train_dice for row in rows]),
        Line("validation, all pixels", ORANGE, epochs, [row.val_dice_pooled for row in rows]),
        Line("tumour slices", GREEN, epochs, [row.val_dice_tumour for row in rows]),
    ]
    chart(draw, (8, 44, 360, 356), "loss", loss, "epoch", log=True)
    chart(draw, (364, 44, 728, 356), "Dice at probability 0.5", dice, "epoch")
    lr = [Line("learning rate", BLUE, epochs, [row.lr for row in rows])]
    chart(draw, (732, 44, 1072, 356), "learning rate at the end of the epoch", lr, "epoch")
    _save(path, finish(image))


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
    _save(path, finish(image))


def tint(
    picture: NDArray[np.uint8], layers: Sequence[tuple[NDArray[np.bool_], Colour]], amount: float = 0.6
) -> NDArray[np.uint8]:
    """Mix a colour into the pixels of each mask; picture uint8 (H, W, 3)."""
    mixed = picture.astype(np.float32)
    for mask, colour in layers:
        mixed[mask] = (1 - amount) * mixed[mask] + amount * np.asarray(colour, np.float32)
    return mixed.round().astype(np.uint8)


def _save(path: Path, image: Image.Image) -> None:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=False)
    write_bytes(path, stream.getvalue())
