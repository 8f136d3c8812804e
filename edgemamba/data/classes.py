"""A user's own pictures, one folder a class: ``DIR/<class>/x.png``, or ``DIR/{train,val,test}/<class>/x.png``.

Any common image format, each picture of its own size, as in ``board.images``; they are resized to the network's.
Other files and hidden folders are left alone, sub-folders of a class are not entered.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgemamba.board import images
from edgemamba.data.base import ClassDataset, Part, Sample
from edgemamba.data.folder import SUFFIXES
from edgemamba.data.pairs import file_hash, listed
from edgemamba.data.parts import natural, part_folders, patient_rule
from edgemamba.errors import InputError

if TYPE_CHECKING:
    from edgemamba.data.base import UInt8

_HINT = "put the pictures of each class in a folder of its name: DIR/<class>/x.png"


class Classes(ClassDataset):
    """The class folders under ``root``, in the order of their names.

    Args:
        group: which pictures belong to one patient, for the patient split: see ``parts.patient_rule``. None: nothing
            is known.

    Raises:
        InputError: less than two classes, an empty one, one that only a held-out part has; a stem that ``group`` does
            not fit.
        UsageError: ``group`` is not a regular expression with a group.
    """

    name = "classes"

    def __init__(self, root: Path, *, group: str | None = None) -> None:
        if not root.is_dir():
            raise InputError(f"{root} is not a folder", hint=_HINT)
        self.root = root
        self.options = {} if group is None else {"group": group}
        self.grouped = group is not None
        places: dict[Part, Path] = part_folders(root) or {"": root}
        found = {part: _class_folders(place) for part, place in places.items()}
        training = found["train" if "train" in found else ""]
        self.labels = tuple(training)
        if len(self.labels) < 2:
            raise InputError(f"{root} has {len(self.labels)} class folders; at least 2 are needed", hint=_HINT)
        for part, classes in found.items():
            foreign = sorted(set(classes) - set(self.labels))
            if foreign:
                raise InputError(
                    f"{listed(foreign)}: in {places[part]}, and no class of {places['train']}",
                    hint="every class needs pictures to train on",
                )
        rows = [
            (sample, path, self.labels.index(label))
            for part, classes in found.items()
            for label, paths in classes.items()
            for sample, path in _samples(part, label, paths, group)
        ]
        rows.sort(key=lambda row: (row[0].patient, natural(row[0].id)))
        self.samples = tuple(sample for sample, _, _ in rows)
        self.targets = tuple(target for _, _, target in rows)
        self._paths = tuple(path for _, path, _ in rows)

    def picture(self, index: int) -> UInt8:
        """See :meth:`ClassDataset.picture`."""
        try:
            return images.open_image(self._paths[index])
        except images.ImageError as error:
            raise InputError(error.message, hint=error.hint) from None

    def fingerprint(self) -> str:
        """See :meth:`Dataset.fingerprint`; an id holds part and class."""
        with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            hashes = pool.map(file_hash, self._paths)
            lines = sorted(f"{sample.id}\t{found}\n" for sample, found in zip(self.samples, hashes, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def has_layout(root: Path) -> bool:
    """Whether ``root``, or its training part, holds at least two folders with pictures."""
    place = part_folders(root).get("train", root)
    return sum(bool(_pictures(folder)) for folder in _folders(place)) > 1


def _folders(place: Path) -> list[Path]:
    folders = (path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(folders, key=lambda path: natural(path.name))


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _class_folders(place: Path) -> dict[str, list[Path]]:
    """Pictures of every class of one part."""
    found = {folder.name: _pictures(folder) for folder in _folders(place)}
    empty = [str(place / label) for label, paths in found.items() if not paths]
    if empty:
        raise InputError(
            f"{len(empty)} class folders have no pictures: {listed(empty)}", hint="fill them, or remove them"
        )
    return found


def _samples(part: Part, label: str, paths: list[Path], group: str | None) -> list[tuple[Sample, Path]]:
    patient_of = patient_rule(group)
    rows = []
    for number, path in enumerate(paths):
        name = "/".join(filter(None, (part, label, path.name)))
        patient = name if group is None else patient_of(path.stem)
        if patient is None:
            raise InputError(f"the group does not fit the file name {path}", hint="change --group, or the name")
        rows.append((Sample(name, patient, number, part), path))
    return rows
