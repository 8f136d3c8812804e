"""Fixed splits that depend on names alone, never on the order of files, a seed or a library.

* ``image``: samples ordered by the SHA-256 of their id; the first 80 % train, then 10 % validation, then 10 %
  test. Slices of one patient land on both sides: leaky, for comparison with published numbers.
* ``fold:K``: patients ordered by the SHA-256 of their name, patient i in fold i mod 5. Test is fold K,
  validation the first half of fold K + 1 in that order, train all others.
* ``patient``: another name of ``fold:0``.
"""

from __future__ import annotations

import dataclasses
import hashlib

from edgemamba.data.base import Dataset
from edgemamba.errors import InputError, UsageError

FOLDS = 5
_LEAST_SAMPLES = 6


@dataclasses.dataclass(frozen=True)
class Split:
    """Indices into ``Dataset.samples``, ascending.

    Attributes:
        spec: ``image``, ``patient`` or ``fold:K``.
        leaky: whether a patient of val or test is also in train, as far as the data set names patients.
    """

    spec: str
    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    leaky: bool

    def counts(self) -> dict[str, int]:
        """Number of samples in each part."""
        return {"train": len(self.train), "val": len(self.val), "test": len(self.test)}


def split_dataset(dataset: Dataset, spec: str) -> Split:
    """Split by ``spec``.

    Raises:
        UsageError: ``spec`` is not one of image, patient, fold:0 ... fold:4.
        InputError: too few samples or patients, or a patient split of a data set that names no patients.
    """
    fold = parse_spec(spec)
    train, val, test = _by_image(dataset) if fold is None else _by_patient(dataset, fold)
    known = {dataset.samples[index].patient for index in train}
    leaky = any(dataset.samples[index].patient in known for index in (*val, *test))
    return Split(spec, tuple(sorted(train)), tuple(sorted(val)), tuple(sorted(test)), leaky)


def parse_spec(spec: str) -> int | None:
    """Fold of a split's name, None for ``image``.

    Raises:
        UsageError: anything else than image, patient, fold:0 ... fold:4.
    """
    if spec == "image":
        return None
    folds = {"patient": 0, **{f"fold:{k}": k for k in range(FOLDS)}}
    if spec not in folds:
        raise UsageError(f"no split is named {spec!r}", hint=f"one of: image, patient, fold:0 ... fold:{FOLDS - 1}")
    return folds[spec]


def _order(name: str) -> tuple[str, str]:
    return hashlib.sha256(name.encode()).hexdigest(), name


def _by_image(dataset: Dataset) -> tuple[list[int], list[int], list[int]]:
    count = len(dataset.samples)
    if count < _LEAST_SAMPLES:
        raise InputError(
            f"{dataset.name} has {count} samples; an image split needs at least {_LEAST_SAMPLES}",
            hint="add images",
        )
    order = sorted(range(count), key=lambda index: _order(dataset.samples[index].id))
    train = count * 8 // 10
    val = (count - train) // 2
    return order[:train], order[train : train + val], order[train + val :]


def _by_patient(dataset: Dataset, fold: int) -> tuple[list[int], list[int], list[int]]:
    if not dataset.grouped:
        raise InputError(
            f"{dataset.name} does not say which images belong to one patient",
            hint="give --group (a separator or a pattern of the file names), or --split image",
        )
    patients = sorted({sample.patient for sample in dataset.samples}, key=_order)
    if len(patients) < FOLDS:
        raise InputError(
            f"{dataset.name} has {len(patients)} patients; a patient split needs at least {FOLDS}",
            hint="add patients, or use --split image (leaky)",
        )
    test = set(patients[fold::FOLDS])
    following = patients[(fold + 1) % FOLDS :: FOLDS]
    val = set(following[: (len(following) + 1) // 2])
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for index, sample in enumerate(dataset.samples):
        parts[1 if sample.patient in val else 2 if sample.patient in test else 0].append(index)
    return parts
