"""Masks as run lengths and images as thumbnails: how pictures travel in a report."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]

THUMBNAIL = 256
_QUALITY = 80


def encode_runs(mask: NDArray[np.generic]) -> list[int]:
    """Row-major runs of a mask as start, length, start, length, ...; ``decode_runs`` is its inverse."""
    flat = np.concatenate([[0], np.asarray(mask).ravel() != 0, [0]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat))
    edges[1::2] -= edges[::2]
    return [int(value) for value in edges]


def decode_runs(runs: list[int], height: int, width: int) -> Mask:
    """Mask (H, W) of runs.

    Raises:
        ValueError: a run outside the picture.
    """
    flat = np.zeros(height * width, bool)
    if len(runs) % 2:
        raise ValueError("runs come in pairs")
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        if start < 0 or length < 1 or start + length > flat.size:
            raise ValueError("a run lies outside the picture")
        flat[start : start + length] = True
    return flat.reshape(height, width)


def thumbnail(image: NDArray[np.uint8], masks: list[NDArray[np.uint8]]) -> tuple[str, list[NDArray[np.uint8]]]:
    """An image with its masks, made small.

    Args:
        image: uint8 (H, W, 3).
        masks: uint8 (H, W) each.

    Returns:
        base64 of a WebP of at most ``THUMBNAIL`` pixels a side, and the masks at its size (nearest).
    """
    height, width = image.shape[:2]
    scale = min(1.0, THUMBNAIL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(image)
    if size != (width, height):
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=_QUALITY, method=6)
    small = [np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in masks]
    return base64.b64encode(stream.getvalue()).decode(), small
