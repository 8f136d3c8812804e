"""A part of a data set in memory, at one size."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgemamba.console import Console
from edgemamba.data.base import Dataset, Sample
from edgemamba.errors import EdgemambaError, InputError

if TYPE_CHECKING:
    from edgemamba.data.base import Truth, UInt8

_LISTED = 3


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Images of ``samples``, in their order, and what is true of them.

    Attributes:
        images: uint8 (N, 3, H, W), RGB.
        truths: masks uint8 (N, H, W) of 0 and 1, or classes int64 (N).
    """

    images: UInt8
    truths: Truth
    samples: tuple[Sample, ...]


def load_arrays(dataset: Dataset, indices: Sequence[int], size: tuple[int, int], console: Console) -> Arrays:
    """Read samples in threads, resized to ``size`` = (h, w): images as on the board, masks by nearest pixel.

    Pictures of several sizes are taken, and the console says so.

    Raises:
        InputError: files that cannot be used; the first few are named, all are counted.
    """
    import numpy as np

    from edgemamba.board import images as board

    pictures = np.empty((len(indices), 3, *size), np.uint8)
    truths: list[Any] = [None] * len(indices)
    sizes = set()

    def fill(place: int) -> InputError | None:
        try:
            image, truth = dataset.read(indices[place])
        except InputError as error:
            return error
        sizes.add((image.shape[1], image.shape[0]))
        pictures[place] = board.resize(image, size).transpose(2, 0, 1)
        truths[place] = dataset.truth_at(truth, size)
        return None

    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = console.track(pool.map(fill, range(len(indices))), f"reading {dataset.name}", len(indices))
        errors = [error for error in results if error is not None]
    if errors:
        raise _summary(errors, len(indices))
    if len(sizes) > 1:
        (w, h), (width, height) = min(sizes), max(sizes)
        told = f"{dataset.name}: pictures of {len(sizes)} sizes, {w}x{h} to {width}x{height}"
        console.line(f"{told}, are resized to {size[1]}x{size[0]}")
    return Arrays(pictures, np.stack(truths), tuple(dataset.samples[index] for index in indices))


def _summary(errors: list[InputError], total: int) -> EdgemambaError:
    if len(errors) == 1:
        return errors[0]
    shown = "; ".join(error.message for error in errors[:_LISTED])
    more = f"; and {len(errors) - _LISTED} more" if len(errors) > _LISTED else ""
    return InputError(f"{len(errors)} of {total} samples cannot be used: {shown}{more}", hint=errors[0].hint)
