"""Fixed splits that depend on names alone, never on the order of files, a seed or a library.

* ``image``: samples ordered by the SHA-256 of their id; the first 80 % train, then 10 % validation, then 10 %
  test. Slices of one patient land on both sides: leaky, for comparison with published numbers.
* ``fold:K``: patients ordered by the SHA-256 of their name, patient i in fold i mod 5. Test is fold K,
  validation the first half of fold K + 1 in that order, train all others.
* ``patient``: another name of ``fold:0``.
* ``official``: the parts of data that comes divided. Without a test part, what is held out as val is the test;
  without validation, it is the first tenth of the training part in the order of ``image``. There ``patient`` is the
  same and refuses a patient in two parts; the other splits would mix training with test and are refused.

Classes are split one by one, so that each is in every part.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from edgemamba.data.base import ClassDataset, Dataset
from edgemamba.errors import InputError, UsageError

FOLDS = 5
_LEAST_SAMPLES = 6
_LEAST_OF_CLASS = 3


class _Parts(NamedTuple):
    train: list[int]
    val: list[int]
    test: list[int]


@dataclasses.dataclass(frozen=True)
class Split:
    """Indices into ``Dataset.samples``, ascending.

    Attributes:
        spec: ``image``, ``patient``, ``official`` or ``fold:K``.
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
        UsageError: ``spec`` is not one of image, patient, official, fold:0 ... fold:4, or does not fit the data.
        InputError: too few samples or patients, a patient split of a data set that names no patients or has one in
            two parts.
    """
    train, val, test = _rule(dataset, spec)(dataset)
    known = {dataset.samples[index].patient for index in train}
    leaky = any(dataset.samples[index].patient in known for index in (*val, *test))
    return Split(spec, tuple(sorted(train)), tuple(sorted(val)), tuple(sorted(test)), leaky)


def _rule(dataset: Dataset, spec: str) -> Callable[[Dataset], _Parts]:
    folds = {f"fold:{k}": k for k in range(FOLDS)}
    if spec not in ("image", "patient", "official", *folds):
        raise UsageError(
            f"no split is named {spec!r}", hint=f"one of: image, patient, official, fold:0 ... fold:{FOLDS - 1}"
        )
    divided = _divided(dataset)
    if spec == "official" and not divided:
        raise UsageError(f"{dataset.name} does not come divided", hint="--split image or --split patient")
    if divided:
        if spec not in ("official", "patient"):
            raise UsageError(f"{dataset.name} has a test part of its own", hint="--split official, or leave it out")
        return _official if spec == "official" else _official_patients
    return _by_image if spec == "image" else lambda data: _by_patient(data, folds.get(spec, 0))


def _divided(dataset: Dataset) -> bool:
    return any(sample.part for sample in dataset.samples)


def _order(name: str) -> tuple[str, str]:
    return hashlib.sha256(name.encode()).hexdigest(), name


def _by_image(dataset: Dataset) -> _Parts:
    count = len(dataset.samples)
    if count < _LEAST_SAMPLES:
        raise InputError(
            f"{dataset.name} has {count} samples; an image split needs at least {_LEAST_SAMPLES}",
            hint="add images",
        )
    train, val, test = _Parts([], [], [])
    for group in _strata(dataset, range(count)):
        kept = min(len(group) * 8 // 10, len(group) - 2)
        middle = kept + (len(group) - kept) // 2
        train += group[:kept]
        val += group[kept:middle]
        test += group[middle:]
    return _Parts(train, val, test)


def _strata(dataset: Dataset, indices: Iterable[int]) -> list[list[int]]:
    """Samples in the order of the hash of their ids, each class for itself.

    Raises:
        InputError: a class has too few for every part.
    """
    order = sorted(indices, key=lambda index: _order(dataset.samples[index].id))
    if not isinstance(dataset, ClassDataset):
        return [order]
    classes: dict[int, list[int]] = {}
    for index in order:
        classes.setdefault(dataset.targets[index], []).append(index)
    few = next((label for label, group in classes.items() if len(group) < _LEAST_OF_CLASS), None)
    if few is not None:
        raise InputError(
            f"{dataset.labels[few]} has {len(classes[few])} images; training, validation and test need "
            f"{_LEAST_OF_CLASS} of each class",
            hint="add images, or leave the class out",
        )
    return list(classes.values())


def _official(dataset: Dataset) -> _Parts:
    parts = _given(dataset)
    if not parts.val:
        for group in _strata(dataset, parts.train):
            parts.val.extend(group[: max(1, len(group) // 10)])
    return _without_val(parts)


def _official_patients(dataset: Dataset) -> _Parts:
    _refuse_ungrouped(dataset)
    parts = _given(dataset)
    seen: dict[str, str] = {}
    for sample in dataset.samples:
        part = seen.setdefault(sample.patient, sample.part)
        if part != sample.part:
            raise InputError(
                f"the patient {sample.patient} of {dataset.name} is in {part}/ and in {sample.part}/",
                hint="move all of a patient's images into one part, or use --split official (leaky)",
            )
    if not parts.val:
        patients = sorted({dataset.samples[index].patient for index in parts.train}, key=_order)
        chosen = set(patients[: max(1, len(patients) // 10)])
        parts.val.extend(index for index in parts.train if dataset.samples[index].patient in chosen)
    return _without_val(parts)


def _given(dataset: Dataset) -> _Parts:
    """The parts as the data has them; what is held out is the test."""
    parts = _Parts(*([i for i, s in enumerate(dataset.samples) if s.part == part] for part in ("train", "val", "test")))
    return parts if parts.test else _Parts(parts.train, [], parts.val)


def _without_val(parts: _Parts) -> _Parts:
    """The training part without what is validated on."""
    val = set(parts.val)
    return _Parts([index for index in parts.train if index not in val], parts.val, parts.test)


def _refuse_ungrouped(dataset: Dataset) -> None:
    if not dataset.grouped:
        other = "official" if _divided(dataset) else "image"
        raise InputError(
            f"{dataset.name} does not say which images belong to one patient",
            hint=f"give --group (a separator or a pattern of the file names), or --split {other}",
        )


def _by_patient(dataset: Dataset, fold: int) -> _Parts:
    _refuse_ungrouped(dataset)
    patients = sorted({sample.patient for sample in dataset.samples}, key=_order)
    if len(patients) < FOLDS:
        raise InputError(
            f"{dataset.name} has {len(patients)} patients; a patient split needs at least {FOLDS}",
            hint="add patients, or use --split image (leaky)",
        )
    test = set(patients[fold::FOLDS])
    following = patients[(fold + 1) % FOLDS :: FOLDS]
    val = set(following[: (len(following) + 1) // 2])
    parts = _Parts([], [], [])
    for index, sample in enumerate(dataset.samples):
        parts[1 if sample.patient in val else 2 if sample.patient in test else 0].append(index)
    return parts
