"""CIFAR-100 in its official layout for Python: ``cifar-100-python/{train,test,meta}``.

60,000 pictures of 32x32 pixels in 100 classes, of which the 10,000 of ``test`` are the test part. Each file is a
pickle of a dictionary; it is read as ``plain_pickle`` allows and checked in full. Smaller sets of the same layout are
taken too.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemamba.data.base import ClassDataset, Part, Sample
from edgemamba.data.pairs import file_hash, listed
from edgemamba.data.plain_pickle import load_plain
from edgemamba.errors import InputError
from edgemamba.files import sha256_json

if TYPE_CHECKING:
    from edgemamba.data.base import UInt8

FOLDER = "cifar-100-python"
SIDE = 32
_FILES = ("train", "test", "meta")
_HINT = f"give the folder {FOLDER} of the archive cifar-100-python.tar.gz, or the folder that holds it"


class Cifar100(ClassDataset):
    """The data set under ``root``: the folder cifar-100-python, or one that contains it.

    Raises:
        InputError: no such layout; a file that is damaged, is refused, or does not hold what it should.
    """

    name = "cifar100"
    grouped = False

    def __init__(self, root: Path) -> None:
        place = find_layout(root)
        if place is None:
            reason = f"has no {FOLDER}/{{train,test,meta}}" if root.is_dir() else "is not a folder"
            raise InputError(f"{root} {reason}", hint=_HINT)
        self.root = root
        self.options = {}
        self._files = [place / name for name in _FILES]
        self.labels = _labels(place / "meta")
        parts: tuple[Part, ...] = ("train", "test")
        read = [_pictures(place / part, len(self.labels)) for part in parts]
        self._pixels = np.concatenate([pixels for pixels, _ in read])
        self.targets = tuple(target for _, targets in read for target in targets)
        names = [(part, i) for part, (pixels, _) in zip(parts, read, strict=True) for i in range(len(pixels))]
        self.samples = tuple(Sample(f"{part}/{i:05d}", f"{part}/{i:05d}", 0, part) for part, i in names)

    def picture(self, index: int) -> UInt8:
        """See :meth:`ClassDataset.picture`."""
        planes: UInt8 = self._pixels[index].reshape(3, SIDE, SIDE)
        return planes.transpose(1, 2, 0)

    def fingerprint(self) -> str:
        """SHA-256 of the three files' hashes."""
        return sha256_json([file_hash(path) for path in self._files])


def find_layout(root: Path) -> Path | None:
    """The folder of the three files at or below ``root``, or None."""
    for place in (root, root / FOLDER):
        if all((place / name).is_file() for name in _FILES):
            return place
    return None


def _document(path: Path) -> dict[str, Any]:
    document = load_plain(path)
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no dictionary", hint=_HINT)
    return {_text(path, key): value for key, value in document.items()}


def _text(path: Path, value: Any) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise InputError(f"{path} holds a name that is not text", hint=_HINT) from None


def _entry(path: Path, document: dict[str, Any], key: str) -> Any:
    if key not in document:
        raise InputError(f"{path} has no {key}; it has {listed(sorted(document)) or 'nothing'}", hint=_HINT)
    return document[key]


def _labels(path: Path) -> tuple[str, ...]:
    names = _entry(path, _document(path), "fine_label_names")
    if not isinstance(names, list) or len(names) < 2:
        raise InputError(f"{path}: fine_label_names is not a list of at least two names", hint=_HINT)
    labels = tuple(_text(path, name) for name in names)
    if len(set(labels)) < len(labels):
        raise InputError(f"{path}: two classes have one name", hint=_HINT)
    return labels


def _pictures(path: Path, classes: int) -> tuple[UInt8, list[int]]:
    """Pixels uint8 (N, 3072) and class of each picture."""
    document = _document(path)
    pixels, targets = (_entry(path, document, key) for key in ("data", "fine_labels"))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3 * SIDE * SIDE,):
        seen = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise InputError(f"{path}: data is {seen}, not uint8 (N, {3 * SIDE * SIDE})", hint=_HINT)
    if not isinstance(targets, list) or len(targets) != len(pixels):
        seen = f"{len(targets)} entries" if isinstance(targets, list) else type(targets).__name__
        raise InputError(f"{path}: fine_labels has {seen} for {len(pixels)} pictures", hint=_HINT)
    for i, target in enumerate(targets):
        if type(target) is not int or not 0 <= target < classes:
            raise InputError(
                f"{path}: the label of picture {i} is {target!r}, not a whole number from 0 to {classes - 1}",
                hint=_HINT,
            )
    if not targets:
        raise InputError(f"{path} holds no pictures", hint=_HINT)
    return pixels, targets
