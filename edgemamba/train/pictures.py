"""Validation pictures that a classifier gets most wrong, as one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemamba.train.drawing import FAINT, INK, SCALE, canvas, finish, font
from edgemamba.train.plots import save_picture

_COLUMNS, _ROWS = 6, 3
_TILE, _GAP, _CAPTION, _TITLE = 128, 12, 36, 34


def save_worst(
    path: Path,
    images: NDArray[np.uint8],
    truths: NDArray[np.integer[Any]],
    found: NDArray[np.integer[Any]],
    probability: NDArray[np.floating[Any]],
    labels: Sequence[str],
) -> None:
    """Draw the pictures whose right class is least probable, the worst first.

    Args:
        path: PNG to write.
        images: uint8 (N, 3, H, W).
        truths, found: right class and first class, (N).
        probability: of the right class, (N).
        labels: names of the classes.
    """
    chosen = np.argsort(probability, kind="stable")[: _COLUMNS * _ROWS].tolist()
    rows = -(-len(chosen) // _COLUMNS)
    step = _TILE + _GAP
    image, draw = canvas(_COLUMNS * step + _GAP, rows * (step + _CAPTION) + _TITLE)
    draw.text((_GAP * SCALE, 10 * SCALE), "pictures whose right class is least probable", INK, font(14))
    for place, index in enumerate(chosen):
        left, top = _GAP + place % _COLUMNS * step, _TITLE + place // _COLUMNS * (step + _CAPTION)
        tile = Image.fromarray(images[index].transpose(1, 2, 0)).resize((_TILE * SCALE,) * 2, Image.Resampling.NEAREST)
        image.paste(tile, (left * SCALE, top * SCALE))
        right = f"{labels[truths[index]]}, {probability[index]:.1%}"
        draw.text((left * SCALE, (top + _TILE + 4) * SCALE), right[:24], INK, font(11))
        wrong = "" if found[index] == truths[index] else f"taken for {labels[found[index]]}"
        draw.text((left * SCALE, (top + _TILE + 18) * SCALE), wrong[:24], FAINT, font(11))
    save_picture(path, finish(image))
