"""Small data in the official layout of CIFAR-100 for Python, written as its publisher's Python 2 wrote it."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgemamba.data import open_dataset


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Protocol 2 with bytes as the strings of Python 2."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_str2(self, value: bytes) -> None:
        short = len(value) < 256
        self.write((b"U" + bytes([len(value)])) if short else b"T" + struct.pack("<i", len(value)))
        self.write(value)
        self.memoize(value)

    dispatch[bytes] = save_str2


def pickled(document: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(document)
    # The name that numpy's function had then.
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def part(name: str, pictures: np.ndarray, targets: list[int]) -> dict[bytes, Any]:
    """The dictionary of one file; pictures uint8 (N, 32, 32, 3)."""
    return {
        b"filenames": [f"{name}_{i}.png".encode() for i in range(len(targets))],
        b"batch_label": f"{name} batch 1 of 1".encode(),
        b"fine_labels": targets,
        b"coarse_labels": [target // 5 for target in targets],
        b"data": np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).reshape(len(targets), 3072),
    }


def write_cifar(root: Path, *, classes: int = 4, train: int = 30, test: int = 6, seed: int = 0) -> Path:
    """Figures of ``classes`` outlines, ``train`` and ``test`` of each, shuffled, below ``root``/cifar-100-python."""
    place = root / "cifar-100-python"
    place.mkdir(parents=True)
    figures = open_dataset("shapes", classes=classes, images=train + test, seed=seed)
    order = np.random.default_rng(seed).permutation(classes * (train + test)).tolist()
    parts: dict[str, list[int]] = {"train": [], "test": []}
    for index in order:
        parts["train" if index % (train + test) < train else "test"].append(index)
    for name, chosen in parts.items():
        pictures, truths = zip(*(figures.read(index) for index in chosen), strict=True)
        document = part(name, np.stack(pictures), [int(truth) for truth in truths])
        (place / name).write_bytes(pickled(document))
    labels = [label.encode() for label in figures.labels]  # type: ignore[attr-defined]
    (place / "meta").write_bytes(pickled({b"fine_label_names": labels, b"coarse_label_names": [b"all"]}))
    return root
