"""Images that fix the ranges of int8 activations, and images that verify an artifact.

A calibration set without foreground silences a network: averaged ranges of empty slices clip every lesion,
and the int8 masks come out empty without an error. So at least half of the set shows foreground, and the
fp32 network must find foreground in it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgemamba.console import Console
from edgemamba.errors import InputError, UsageError
from edgemamba.files import sha256_bytes, sha256_json

if TYPE_CHECKING:
    from edgemamba.data import Dataset, Split
    from edgemamba.sources import Source

Floats = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

MIN_IMAGES = 16
# Seed of phantoms that no default training run has seen.
_UNSEEN_SEED = 1
SCALE = 1.0 / 255.0


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images at the network's size.

    Attributes:
        images: uint8 (N, 3, H, W).
        masks: uint8 (N, H, W) in {0, 1}.
        ids: sample ids, in order.
        origin: which data and split, for people.
    """

    images: UInt8
    masks: UInt8
    ids: tuple[str, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Floats]:
        """Each image as the network takes it: float32 (1, 3, H, W) in [0, 1]."""
        for image in self.images:
            yield image[None].astype(np.float32) * np.float32(SCALE)

    @property
    def sha256(self) -> str:
        """Over the ids and the pixels, in order: what the manifest records."""
        pixels = [sha256_bytes(np.ascontiguousarray(image).tobytes()) for image in self.images]
        return sha256_json([list(self.ids), pixels])

    @property
    def foreground(self) -> int:
        """How many images have any foreground in their mask."""
        return int(self.masks.any(axis=(1, 2)).sum())


class CalibrationSet(ImageSet):
    """Images of the training split, at least half of them with foreground."""

    def as_document(self) -> dict[str, object]:
        """What the manifest records of it."""
        return {
            "images": len(self),
            "with_foreground": self.foreground,
            "data": self.origin,
            "sha256": self.sha256,
            # The list itself would name patients.
            "files_sha256": sha256_json(list(self.ids)),
        }


def calibration_set(source: Source, count: int = 64, seed: int = 0, *, data_root: Path | None = None) -> CalibrationSet:
    """Draw ``count`` images from the source's training split: half with foreground, half without.

    Where one kind is too rare the other fills up, but never to less than half with foreground.

    Raises:
        UsageError: fewer than one image asked for.
        InputError: the data is not at hand, or its training split shows no foreground.
    """
    if count < 1:
        raise UsageError(f"{count} calibration images asked for", hint=f"--calibration {MIN_IMAGES} or more")
    dataset, split = open_data(source, data_root)
    order = np.random.default_rng(seed).permutation(np.asarray(split.train, np.int64)).tolist()
    with_foreground: list[int] = []
    without: list[int] = []
    for index in order:
        if len(with_foreground) >= (count + 1) // 2 and len(with_foreground) + len(without) >= count:
            break
        (with_foreground if dataset.read(index)[1].any() else without).append(index)
    if not with_foreground:
        raise InputError(
            f"none of {len(order)} training images of {dataset.name} has foreground: int8 would clip lesions",
            hint="calibrate on data with lesions, or use --precision fp16",
        )
    empty = min(len(without), count // 2, len(with_foreground))
    # The moving average of LiteRT's calibration is seeded by the first image: it must not be an empty one.
    spread = {
        len(with_foreground[: count - empty]) * i // max(1, empty): index for i, index in enumerate(without[:empty])
    }
    chosen = []
    for position, index in enumerate(with_foreground[: count - empty]):
        chosen.append(index)
        if position in spread:
            chosen.append(spread[position])
    return CalibrationSet(*_load(dataset, chosen, source.size, f"{dataset.label}, training split"))


def verification_set(source: Source, count: int = 100, *, data_root: Path | None = None) -> ImageSet:
    """``count`` images the network has not seen: the source's test and validation images, else phantoms.

    Phantoms take over only where the source's own data is not at hand; ``origin`` says so.

    Raises:
        InputError: ``data_root`` was given and does not hold the source's data.
    """
    from edgemamba.data import open_dataset

    try:
        dataset, split = open_data(source, data_root)
    except InputError:
        if data_root is not None:
            raise
        phantoms = open_dataset("phantoms", seed=_UNSEEN_SEED)
        # Not the error's text: this is shipped in the manifest, and the text names a local path.
        origin = "phantoms, because the training data is not at hand"
        return ImageSet(*_load(phantoms, _spread(range(len(phantoms.samples)), count), source.size, origin))
    indices = _spread([*split.test, *split.val], count)
    return ImageSet(*_load(dataset, indices, source.size, f"{dataset.label}, test and validation split"))


def validation_set(source: Source, *, data_root: Path | None = None) -> ImageSet:
    """Every validation image of the source: what a choice between variants may look at.

    Raises:
        InputError: the source's data is not at hand.
    """
    dataset, split = open_data(source, data_root)
    origin = f"{dataset.label}, validation split"
    return ImageSet(*_load(dataset, list(split.val), source.size, origin))


def open_data(source: Source, data_root: Path | None = None) -> tuple[Dataset, Split]:
    """The source's data and split: at ``data_root``, else where it was, else where EDGEMAMBA_DATA says.

    Raises:
        InputError: not there, not the recorded data, or no data is recorded.
    """
    from edgemamba.data import open_ref
    from edgemamba.data.catalogue import ENVIRONMENT

    ref = source.data
    if ref is None:
        raise InputError(f"{source.name} does not say on which data it was trained")
    elsewhere = os.environ.get(ENVIRONMENT)
    known = ref.root is not None and Path(ref.root).is_dir()
    if data_root is None and elsewhere and ref.name != "phantoms" and not known:
        data_root = Path(elsewhere)
    return open_ref(ref, data_root)


def _spread(indices: Sequence[int], count: int) -> list[int]:
    """``count`` of ``indices``, evenly: neighbouring slices of one patient look alike."""
    if len(indices) <= count:
        return list(indices)
    return [indices[i * len(indices) // count] for i in range(count)]


def _load(
    dataset: Dataset, indices: Sequence[int], size: tuple[int, int], origin: str
) -> tuple[UInt8, UInt8, tuple[str, ...], str]:
    from edgemamba.data import load_arrays

    arrays = load_arrays(dataset, list(indices), size, Console(quiet=True))
    return arrays.images, arrays.truths, tuple(sample.id for sample in arrays.samples), origin
