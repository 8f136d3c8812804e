"""Image and mask files that belong together: reading, checking and hashing them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgemamba.board import images
from edgemamba.data.base import Dataset
from edgemamba.errors import InputError
from edgemamba.files import sha256_file

if TYPE_CHECKING:
    from edgemamba.data.base import UInt8

_LISTED = 3


@dataclasses.dataclass(frozen=True)
class Pair:
    """Files of one sample."""

    image: Path
    mask: Path


class PairDataset(Dataset):
    """A data set of files; ``pairs[i]`` belongs to ``samples[i]``."""

    root: Path
    pairs: tuple[Pair, ...]

    def read(self, index: int) -> tuple[UInt8, UInt8]:
        """See :meth:`Dataset.read`."""
        pair = self.pairs[index]
        try:
            image = images.open_image(pair.image)
            mask = read_mask(pair.mask)
        except images.ImageError as error:
            raise InputError(error.message, hint=error.hint) from None
        if mask.shape != image.shape[:2]:
            raise InputError(
                f"{pair.mask} is {_size(mask)}, its image {pair.image.name} is {_size(image)} pixels",
                hint="a mask has one value for each pixel of its image",
            )
        return image, mask

    def fingerprint(self) -> str:
        """See :meth:`Dataset.fingerprint`."""
        with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            hashes = pool.map(_pair_hash, self.pairs)
            lines = sorted(f"{sample.id}\t{found}\n" for sample, found in zip(self.samples, hashes, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _size(array: UInt8) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _pair_hash(pair: Pair) -> str:
    return f"{file_hash(pair.image)}\t{file_hash(pair.mask)}"


def file_hash(path: Path) -> str:
    """SHA-256 of a file's contents, read once for each size and time of change.

    Raises:
        InputError: it cannot be read.
    """
    try:
        status = path.stat()
        return _known_hash(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


@functools.cache
def _known_hash(path: Path, _size: int, _mtime_ns: int) -> str:
    return sha256_file(path)


def read_mask(path: Path) -> UInt8:
    """Read a binary mask.

    The values are 0 and 1, or 0 and 255 (an empty mask has only 0, a full one only 1 or 255). A palette
    counts by its colours where they are grey, by its indices where they are not. A mask with three channels
    has them equal; transparency is black.

    Returns:
        uint8 (H, W) of 0 and 1.

    Raises:
        ImageError: not an image, damaged, or with other values.
    """
    picture = images.load(path)
    indexed = picture.mode == "P" and not _grey(np.asarray(picture.convert("RGB")))
    if indexed or picture.mode in ("L", "F") or picture.mode.startswith("I"):
        values = np.asarray(picture)
    else:
        colors = images.to_rgb(path, picture)
        if not _grey(colors):
            raise images.ImageError(f"{path} is a colour image, not a mask", "save the mask as grey, 0 and 255")
        values = colors[:, :, 0]
    foreground = values != 0
    marks = np.unique(values[foreground])
    if marks.size > 1 or (marks.size == 1 and marks[0] not in (1, 255)):
        seen = ", ".join(f"{mark:g}" for mark in marks[:4].tolist()) + (", ..." if marks.size > 4 else "")
        raise images.ImageError(
            f"{path} is not a mask of 0 and 1 or 0 and 255: beside 0 it has {seen}",
            "save masks without loss (PNG, TIFF, GIF), one class, not resized with interpolation",
        )
    return foreground.astype(np.uint8)


def _grey(colors: UInt8) -> bool:
    return bool((colors == colors[:, :, :1]).all())


def listed(names: Sequence[str]) -> str:
    """The first few of ``names`` and how many more there are."""
    shown = ", ".join(names[:_LISTED])
    more = len(names) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown
