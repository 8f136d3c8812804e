"""Data that comes divided into train, val and test, and which samples of a folder belong to one patient."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from edgemamba.data.base import Part
from edgemamba.errors import InputError, UsageError

_NAMES: Mapping[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def part_folders(root: Path) -> dict[Part, Path]:
    """The folders of the parts below ``root``; empty unless there is a training part and one that is held out.

    Raises:
        InputError: two folders for one part.
    """
    found: dict[Part, Path] = {}
    for part, names in _NAMES.items():
        for name in names:
            if (root / name).is_dir():
                if part in found:
                    raise InputError(f"{root} has {found[part].name}/ and {name}/", hint="keep one of them")
                found[part] = root / name
    return found if "train" in found and len(found) > 1 else {}


def patient_rule(group: str | None) -> Callable[[str], str | None]:
    """From a file's stem to its patient; None where ``group`` does not fit it.

    Args:
        group: without brackets a separator: the patient is what stands before its first occurrence. Otherwise a
            regular expression that is searched in the stem; its first group is the patient. None: the stem itself.

    Raises:
        UsageError: ``group`` is not a regular expression with a group.
    """
    if group is None:
        return lambda stem: stem
    if not group:
        raise UsageError("the group is empty", hint='give a separator such as "_", or a pattern such as "^(p[0-9]+)"')
    if "(" not in group:
        return lambda stem: stem.split(group)[0] or None if group in stem else None
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise UsageError(f"the group {group!r} is not a regular expression: {error}") from None
    if not pattern.groups:
        raise UsageError(f"the group {group!r} captures nothing", hint='put the patient in brackets: "^(p[0-9]+)_"')

    def search(stem: str) -> str | None:
        match = pattern.search(stem)
        return match[1] if match and match[1] else None

    return search


def natural(stem: str) -> tuple[list[tuple[int, str]], str]:
    """Key that sorts s2 before s10."""
    pieces = re.split(r"([0-9]+)", stem)
    return [(int(piece), "") if place % 2 else (0, piece) for place, piece in enumerate(pieces)], stem
