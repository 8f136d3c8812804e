"""Images that fix the ranges of int8 activations, and images that verify an artifact.

Which images of the training split calibrate is the task's choice (``tasks``).
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgemamba.console import Console
from edgemamba.errors import InputError, UsageError
from edgemamba.files import sha256_bytes, sha256_json
from edgemamba.registry import Task
from edgemamba.stages import own_images
from edgemamba.tasks import rules_of

if TYPE_CHECKING:
    from edgemamba.data import Dataset, Split
    from edgemamba.sources import Source

Floats = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

MIN_IMAGES = 16
# Seed of generated pictures that no default training run has seen.
_UNSEEN_SEED = 1
SCALE = 1.0 / 255.0
_NO_IMAGES = "no images of its own kind were given"


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images at the network's size.

    Attributes:
        images: uint8 (N, C, H, W), or float32 of a user's own arrays, which the network takes as they are.
        truths: what is known of each: masks uint8 (N, H, W) in {0, 1}, or classes (N,); empty where nothing is.
        ids: sample ids, in order.
        origin: which data and split, for people.
    """

    images: npt.NDArray[Any]
    truths: npt.NDArray[Any]
    ids: tuple[str, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Floats]:
        """Each image as the network takes it: float32 (1, C, H, W)."""
        for image in self.images:
            if image.dtype == np.uint8:
                yield image[None].astype(np.float32) * np.float32(SCALE)
            else:
                yield image[None]

    @functools.cached_property
    def sha256(self) -> str:
        """Over the ids and the pixels, in order: what the manifest records."""
        pixels = [sha256_bytes(np.ascontiguousarray(image).tobytes()) for image in self.images]
        return sha256_json([list(self.ids), pixels])


@dataclasses.dataclass(frozen=True)
class CalibrationSet(ImageSet):
    """Images that the network may know: of its training split, or a user's own.

    Attributes:
        facts: what the task says about them.
    """

    facts: dict[str, int] = dataclasses.field(default_factory=dict)

    def as_document(self) -> dict[str, object]:
        """What the manifest records of it."""
        return {
            "images": len(self),
            **self.facts,
            "data": self.origin,
            "sha256": self.sha256,
            # The list itself would name patients.
            "files_sha256": sha256_json(list(self.ids)),
        }


def calibration_set(source: Source, count: int = 64, seed: int = 0, *, data_root: Path | None = None) -> CalibrationSet:
    """Draw ``count`` images from the source's training split, or from a user's own images.

    Raises:
        UsageError: fewer than one image asked for.
        InputError: the data is not at hand, or its training split cannot calibrate this network.
    """
    if count < 1:
        raise UsageError(f"{count} calibration images asked for", hint=f"--calibration {MIN_IMAGES} or more")
    if source.data is None and source.images is not None:
        return CalibrationSet(*own_images.read(source, source.images, count, "calibrate", MIN_IMAGES))
    from edgemamba.data import ClassDataset

    dataset, split = open_data(source, data_root)
    order = np.random.default_rng(seed).permutation(np.asarray(split.train, np.int64)).tolist()
    rules = rules_of(source.info.task)
    # A class is known without decoding the picture, a mask is not.
    known = dataset.targets.__getitem__ if isinstance(dataset, ClassDataset) else lambda index: dataset.read(index)[1]
    chosen = rules.pick(order, known, count)
    images, truths, ids, origin = _load(dataset, chosen, source.size, f"{dataset.label}, training split")
    return CalibrationSet(images, truths, ids, origin, rules.describe(truths))


def verification_set(source: Source, count: int = 100, *, data_root: Path | None = None) -> ImageSet:
    """``count`` images the network has not seen: the source's test and validation images, or a user's own.

    Generated pictures take over only where there are none at hand; ``origin`` says so.

    Raises:
        InputError: ``data_root`` was given and does not hold the source's data, or a user's image cannot be read.
    """
    from edgemamba.data import noise, open_dataset

    if source.data is None and source.images is not None:
        return ImageSet(*own_images.read(source, source.images, count, "verify", MIN_IMAGES))
    if source.channels != 3:
        pixels = noise.pictures(count, source.size, source.channels, _UNSEEN_SEED).transpose(0, 3, 1, 2)
        ids = tuple(f"noise/{number}" for number in range(count))
        return ImageSet(pixels, np.zeros(0), ids, f"natural-like noise, because {_NO_IMAGES}")
    reason = _NO_IMAGES
    if source.data is not None:
        try:
            dataset, split = open_data(source, data_root)
        except InputError:
            if data_root is not None:
                raise
            # Not the error's text: this is shipped in the manifest, and the text names a local path.
            reason = "the training data is not at hand"
        else:
            indices = _spread([*split.test, *split.val], count)
            return ImageSet(*_load(dataset, indices, source.size, f"{dataset.label}, test and validation split"))
    phantoms = open_dataset("phantoms", seed=_UNSEEN_SEED)
    indices = _spread(range(len(phantoms.samples)), count)
    return ImageSet(*_load(phantoms, indices, source.size, f"phantoms, because {reason}"))


def validation_set(source: Source, *, data_root: Path | None = None) -> ImageSet:
    """Every validation image of the source: what a choice between variants may look at.

    Raises:
        InputError: the source's data is not at hand.
    """
    dataset, split = open_data(source, data_root)
    origin = f"{dataset.label}, validation split"
    return ImageSet(*_load(dataset, list(split.val), source.size, origin))


def refuse_silent(task: Task, largest: float, images: int) -> None:
    """Raise InputError if the largest output on the calibration images says that the network finds nothing there."""
    reason = rules_of(task).silent(largest)
    if reason:
        raise InputError(
            f"{reason} in {images} calibration images: int8 would not find any either",
            hint="train longer, take more --calibration images, or use --precision fp16",
        )


def open_data(source: Source, data_root: Path | None = None) -> tuple[Dataset, Split]:
    """The source's data and split: at ``data_root``, else where it was, else where EDGEMAMBA_DATA says.

    Raises:
        InputError: not there, not the recorded data, or no data is recorded.
    """
    from edgemamba.data import open_ref
    from edgemamba.data.catalogue import ENVIRONMENT

    ref = source.data
    if ref is None:
        raise InputError(
            f"{source.name} does not say on which data it was trained, so that nothing is known to calibrate it",
            hint="a folder of images of its own kind with --images DIR, or --precision fp16",
        )
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
