"""A user's own pairs: ``images/x.png`` with ``masks/x.gif`` or ``masks/x_mask.png``, equal in their stem.

Any common image format, each picture of its own size; masks of 0 and 1 or 0 and 255 (``pairs.read_mask``),
images as in ``board.images``. Other files (hidden ones, text) are left alone, sub-folders are not entered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from edgemamba.data.base import Sample
from edgemamba.data.pairs import Pair, PairDataset, listed
from edgemamba.errors import InputError, UsageError

SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm"})
MASK_ENDINGS = ("_mask", "-mask", "_masks", "_segmentation", "_seg", "_label")
_HINT = "put the images in DIR/images and a mask of the same stem for each in DIR/masks"


class Folder(PairDataset):
    """The pairs under ``root``.

    Args:
        group: which images belong to one patient, for the patient split. Without brackets it is a separator:
            the patient is what stands before its first occurrence in the stem. Otherwise it is a regular
            expression that is searched in the stem; its first group is the patient. None: nothing is known.

    Raises:
        InputError: no such layout, nothing in it, an image without mask or mask without image, equal stems,
            a stem that ``group`` does not fit.
        UsageError: ``group`` is not a regular expression with a group.
    """

    name = "folder"

    def __init__(self, root: Path, *, group: str | None = None) -> None:
        if not has_layout(root):
            reason = "has no folders images/ and masks/" if root.is_dir() else "is not a folder"
            raise InputError(f"{root} {reason}", hint=_HINT)
        self.root = root
        self.options = {} if group is None else {"group": group}
        self.grouped = group is not None
        images = _by_stem(root / "images")
        masks = _match_masks(images, _by_stem(root / "masks"))
        alone = sorted(str(path) for stem, path in images.items() if stem not in masks)
        if alone:
            raise InputError(f"{len(alone)} images without mask: {listed(alone)}", hint=_HINT)
        if not images:
            raise InputError(f"{root / 'images'} has no images", hint=_HINT)
        self.samples = _samples(list(images), _patient_rule(group))
        self.pairs = tuple(Pair(images[sample.id], masks[sample.id]) for sample in self.samples)


def has_layout(root: Path) -> bool:
    """Whether ``root`` holds images/ and masks/."""
    return (root / "images").is_dir() and (root / "masks").is_dir()


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in found:
            raise InputError(
                f"{folder} has {found[path.stem].name} and {path.name}, of equal stem",
                hint="rename or remove one",
            )
        found[path.stem] = path
    return found


def _match_masks(images: dict[str, Path], files: dict[str, Path]) -> dict[str, Path]:
    """Masks by the stem of their image: the equal stem, else the stem without an ending such as ``_mask``."""
    masks: dict[str, Path] = {}
    alone = []
    for stem, path in files.items():
        bare = (stem.removesuffix(ending) for ending in MASK_ENDINGS if stem.endswith(ending))
        owner = next((name for name in (stem, *bare) if name in images), None)
        if owner is None:
            alone.append(str(path))
        elif owner in masks:
            raise InputError(f"{images[owner]} has two masks, {masks[owner].name} and {path.name}", hint="remove one")
        else:
            masks[owner] = path
    if alone:
        raise InputError(f"{len(alone)} masks without image: {listed(alone)}", hint=_HINT)
    return masks


def _patient_rule(group: str | None) -> Callable[[str], str | None]:
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


def _samples(stems: list[str], patient_of: Callable[[str], str | None]) -> tuple[Sample, ...]:
    patients = {stem: patient_of(stem) for stem in stems}
    unfit = sorted(stem for stem, patient in patients.items() if patient is None)
    if unfit:
        raise InputError(
            f"the group fits none of {len(unfit)} file names: {listed(unfit)}",
            hint="change --group, or the names",
        )
    samples = []
    counts: dict[str, int] = {}
    for stem in sorted(stems, key=_natural):
        patient = str(patients[stem])
        counts[patient] = counts.get(patient, -1) + 1
        samples.append(Sample(stem, patient, counts[patient]))
    return tuple(sorted(samples, key=lambda sample: (sample.patient, sample.number)))


def _natural(stem: str) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"([0-9]+)", stem)
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)], stem
