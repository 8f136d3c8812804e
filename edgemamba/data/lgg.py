"""LGG brain MRI: 110 patients, 3,929 slices as ``kaggle_3m/<patient>/<slice>.tif`` and ``<slice>_mask.tif``.

Channels: pre-contrast, FLAIR, post-contrast; a missing sequence is FLAIR again. Masks mark the FLAIR
abnormality.

Source: Buda, Saha, Mazurowski, Computers in Biology and Medicine 109, 2019; images from The Cancer Imaging
Archive.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from edgemamba.data.base import Sample
from edgemamba.data.pairs import Pair, PairDataset, listed
from edgemamba.errors import InputError
from edgemamba.files import sha256_json

_PLACES = ("", "kaggle_3m", "lgg-mri-segmentation/kaggle_3m")
_SLICE = re.compile(r"(?P<id>.+_(?P<number>[0-9]+))(?P<mask>_mask)?\.tif")
# SHA-256 of the sorted slice names: the set is public and may lie here in another encoding than a net was trained on.
_PUBLISHED = "96aa822cf58dc00ba1131b2aa0a724602cc024836dbf4f1a98c822c22286b147"
_HINT = "give the folder kaggle_3m of the data set LGG MRI Segmentation, or the folder that holds it"


class LGG(PairDataset):
    """The data set under ``root``: the folder kaggle_3m, or one that contains it.

    Raises:
        InputError: no such layout, an image without mask or a mask without image, a foreign file name.
    """

    name = "lgg"

    def __init__(self, root: Path) -> None:
        place = find_layout(root)
        if place is None:
            reason = "has no <patient>/<slice>_mask.tif below it" if root.is_dir() else "is not a folder"
            raise InputError(f"{root} {reason}", hint=_HINT)
        self.root = root
        self.options = {}
        images: dict[Sample, Path] = {}
        masks: dict[Sample, Path] = {}
        for folder in sorted(path for path in place.iterdir() if path.is_dir()):
            _list_patient(folder, images, masks)
        _check(images, masks)
        self.samples = tuple(sorted(images, key=lambda sample: (sample.patient, sample.number, sample.id)))
        self.pairs = tuple(Pair(images[sample], masks[sample]) for sample in self.samples)

    def published(self) -> bool:
        """Whether all 3,929 slices of the public set are here."""
        return sha256_json(sorted(sample.id for sample in self.samples)) == _PUBLISHED


def find_layout(root: Path) -> Path | None:
    """The folder of patients at or below ``root``, or None."""
    for below in _PLACES:
        place = root / below
        if place.is_dir() and next(place.glob("*/*_mask.tif"), None) is not None:
            return place
    return None


def _list_patient(folder: Path, images: dict[Sample, Path], masks: dict[Sample, Path]) -> None:
    for path in folder.iterdir():
        if path.suffix != ".tif" or path.name.startswith("."):
            continue
        match = _SLICE.fullmatch(path.name)
        if match is None:
            raise InputError(f"{path} is not named <slice>_<number>.tif or <slice>_<number>_mask.tif", hint=_HINT)
        kind = masks if match["mask"] else images
        kind[Sample(match["id"], folder.name, int(match["number"]))] = path


def _check(images: dict[Sample, Path], masks: dict[Sample, Path]) -> None:
    hint = "unpack the archive again: every slice is a pair of <slice>.tif and <slice>_mask.tif"
    for kind, own, other, others in (("images", images, "mask", masks), ("masks", masks, "image", images)):
        alone = sorted(str(path) for sample, path in own.items() if sample not in others)
        if alone:
            raise InputError(f"{len(alone)} {kind} without {other}: {listed(alone)}", hint=hint)
    repeated = sorted(name for name, count in Counter(sample.id for sample in images).items() if count > 1)
    if repeated:
        raise InputError(f"slices that occur in more than one patient: {listed(repeated)}", hint=hint)
