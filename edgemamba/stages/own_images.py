"""A user's own images for a network whose data is not known: a folder of pictures, or of .npy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgemamba.board import images
from edgemamba.bundle.session import board_errors
from edgemamba.errors import InputError
from edgemamba.files import sha256_bytes

if TYPE_CHECKING:
    from edgemamba.sources import Source

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm")


def read(
    source: Source, folder: Path, count: int, use: Literal["calibrate", "verify"], least: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], tuple[str, ...], str]:
    """Images, truths, ids and origin for an ``ImageSet``: what is in ``folder``, at most ``count`` of it.

    Half of the files calibrate and the other half verify, by the hash of their names; with fewer than twice ``least``
    all do both, which the origin says. Arrays are taken as they are, and only where there are no pictures.

    Raises:
        InputError: no folder, nothing in it, or a file that cannot be used.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint="--images takes a folder of pictures or .npy files")
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = [path for path in files if path.suffix.lower() in _PICTURES]
    found = found or [path for path in files if path.suffix == ".npy"]
    if not found:
        raise InputError(f"{folder} holds no pictures and no .npy files", hint=f"known: {', '.join(_PICTURES)}, .npy")
    found.sort(key=lambda path: sha256_bytes(path.relative_to(folder).as_posix().encode()))
    origin = "own images"
    if len(found) >= 2 * least:
        found = found[0 if use == "calibrate" else 1 :: 2]
    else:
        origin += ", the same for calibration and verification"
    chosen = found[:count]
    with board_errors():
        pixels = [_one(source, path) for path in chosen]
    return np.stack(pixels), np.zeros(0), tuple(path.relative_to(folder).as_posix() for path in chosen), origin


def _one(source: Source, path: Path) -> npt.NDArray[Any]:
    """(C, H, W), uint8 of a picture and float32 of an array."""
    if path.suffix == ".npy":
        return images.open_array(path, (1, source.channels, *source.size))[0]
    picture = images.of_channels(path, images.open_image(path), source.channels)
    return images.resize(picture, source.size).transpose(2, 0, 1)
