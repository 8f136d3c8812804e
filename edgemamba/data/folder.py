"""A user's own pairs: ``images/x.png`` with ``masks/x.gif`` or ``masks/x_mask.png``, equal in their stem.

They lie in the folder itself or, where the data comes divided, in its train/, val/ and test/.

Any common image format, each picture of its own size; masks of 0 and 1 or 0 and 255 (``pairs.read_mask``),
images as in ``board.images``. Other files (hidden ones, text) are left alone, sub-folders are not entered.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgemamba.data.base import Part, Sample
from edgemamba.data.pairs import Pair, PairDataset, listed
from edgemamba.data.parts import natural, part_folders, patient_rule
from edgemamba.errors import InputError

SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm"})
MASK_ENDINGS = ("_mask", "-mask", "_masks", "_segmentation", "_seg", "_label")
_HINT = "put the images in DIR/images and a mask of the same stem for each in DIR/masks"


class Folder(PairDataset):
    """The pairs under ``root``.

    Args:
        group: which images belong to one patient, for the patient split: see ``parts.patient_rule``. None: nothing
            is known.

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
        stems: dict[str, tuple[Part, str]] = {}
        pairs: dict[str, Pair] = {}
        places: dict[Part, Path] = {"": root} if _has_pairs(root) else part_folders(root)
        for part, place in places.items():
            for stem, pair in _pairs(place).items():
                name = f"{part}/{stem}" if part else stem
                stems[name], pairs[name] = (part, stem), pair
        self.samples = _samples(stems, patient_rule(group))
        self.pairs = tuple(pairs[sample.id] for sample in self.samples)


def has_layout(root: Path) -> bool:
    """Whether ``root``, or each of its parts, holds images/ and masks/."""
    parts = part_folders(root)
    return _has_pairs(root) or (bool(parts) and all(map(_has_pairs, parts.values())))


def _has_pairs(place: Path) -> bool:
    return (place / "images").is_dir() and (place / "masks").is_dir()


def _pairs(place: Path) -> dict[str, Pair]:
    """The pairs of one part by their stem."""
    images = _by_stem(place / "images")
    masks = _match_masks(images, _by_stem(place / "masks"))
    alone = sorted(str(path) for stem, path in images.items() if stem not in masks)
    if alone:
        raise InputError(f"{len(alone)} images without mask: {listed(alone)}", hint=_HINT)
    if not images:
        raise InputError(f"{place / 'images'} has no images", hint=_HINT)
    return {stem: Pair(images[stem], masks[stem]) for stem in images}


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


def _samples(stems: dict[str, tuple[Part, str]], patient_of: Callable[[str], str | None]) -> tuple[Sample, ...]:
    patients = {name: patient_of(stem) for name, (_, stem) in stems.items()}
    unfit = sorted(name for name, patient in patients.items() if patient is None)
    if unfit:
        raise InputError(
            f"the group fits none of {len(unfit)} file names: {listed(unfit)}",
            hint="change --group, or the names",
        )
    samples = []
    counts: dict[str, int] = {}
    for name in sorted(stems, key=natural):
        patient = str(patients[name])
        counts[patient] = counts.get(patient, -1) + 1
        samples.append(Sample(name, patient, counts[patient], stems[name][0]))
    return tuple(sorted(samples, key=lambda sample: (sample.patient, sample.number)))
