"""The rules of the fixed splits, computed here a second time."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.samples import UInt8
from edgemamba.data import FOLDS, Sample, Split, split_dataset
from edgemamba.data.base import Dataset
from edgemamba.errors import InputError, UsageError


class Names(Dataset):
    """A data set of which only the names exist."""

    name = "names"
    root = None

    def __init__(self, samples: list[Sample], *, grouped: bool = True) -> None:
        self.options = {}
        self.samples = tuple(samples)
        self.grouped = grouped

    def read(self, index: int) -> tuple[UInt8, UInt8]:
        raise NotImplementedError

    def fingerprint(self) -> str:
        return ""


def made(counts: list[int], *, grouped: bool = True) -> Names:
    """Patient k has counts[k] samples."""
    samples = [Sample(f"p{k}_{n}", f"p{k}", n) for k, count in enumerate(counts) for n in range(count)]
    return Names(samples, grouped=grouped)


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def names(dataset: Dataset, indices: tuple[int, ...]) -> set[str]:
    return {dataset.samples[index].id for index in indices}


def patients(dataset: Dataset, indices: tuple[int, ...]) -> set[str]:
    return {dataset.samples[index].patient for index in indices}


def check_partition(dataset: Dataset, split: Split) -> None:
    assert sorted((*split.train, *split.val, *split.test)) == list(range(len(dataset.samples)))
    assert all(list(part) == sorted(part) and part for part in (split.train, split.val, split.test))


many = st.lists(st.integers(1, 9), min_size=6, max_size=40)


@settings(max_examples=50, deadline=None)
@given(many)
def test_image_split_follows_the_hash_of_the_id(counts: list[int]) -> None:
    dataset = made(counts)
    split = split_dataset(dataset, "image")
    check_partition(dataset, split)
    order = sorted((sample.id for sample in dataset.samples), key=sha)
    assert names(dataset, split.train) == set(order[: len(split.train)])
    assert names(dataset, split.test) == set(order[-len(split.test) :])
    assert len(split.train) == int(len(order) * 0.8 + 1e-9)
    assert 0 <= len(split.test) - len(split.val) <= 1
    assert split.leaky == bool(patients(dataset, split.train) & patients(dataset, split.val + split.test))


@settings(max_examples=50, deadline=None)
@given(many, st.integers(0, FOLDS - 1))
def test_patient_folds_follow_the_hash_of_the_patient(counts: list[int], fold: int) -> None:
    dataset = made(counts)
    split = split_dataset(dataset, f"fold:{fold}")
    check_partition(dataset, split)
    order = sorted({sample.patient for sample in dataset.samples}, key=sha)
    following = [patient for i, patient in enumerate(order) if i % FOLDS == (fold + 1) % FOLDS]
    assert patients(dataset, split.test) == {patient for i, patient in enumerate(order) if i % FOLDS == fold}
    assert patients(dataset, split.val) == set(following[: -(-len(following) // 2)])
    assert not patients(dataset, split.train) & patients(dataset, split.val + split.test)
    assert not split.leaky


@settings(max_examples=20, deadline=None)
@given(many, st.sampled_from(["image", "patient", "fold:3"]), st.randoms())
def test_order_of_the_samples_does_not_matter(counts: list[int], spec: str, shuffler: random.Random) -> None:
    dataset = made(counts)
    samples = list(dataset.samples)
    shuffler.shuffle(samples)
    shuffled = Names(samples)
    one, other = split_dataset(dataset, spec), split_dataset(shuffled, spec)
    for part in ("train", "val", "test"):
        assert names(dataset, getattr(one, part)) == names(shuffled, getattr(other, part))


def test_the_folds_cover_every_patient_once() -> None:
    dataset = made([2] * 23)
    tests = [patients(dataset, split_dataset(dataset, f"fold:{k}").test) for k in range(FOLDS)]
    assert sum(len(test) for test in tests) == 23
    assert set.union(*tests) == {sample.patient for sample in dataset.samples}


def test_patient_is_fold_0() -> None:
    dataset = made([3] * 12)
    one, other = split_dataset(dataset, "patient"), split_dataset(dataset, "fold:0")
    assert (one.spec, other.spec) == ("patient", "fold:0")
    assert (one.train, one.val, one.test) == (other.train, other.val, other.test)


def test_the_sizes_of_lgg() -> None:
    dataset = made([36] * 79 + [35] * 31)
    assert len(dataset.samples) == 3929
    assert split_dataset(dataset, "image").counts() == {"train": 3143, "val": 393, "test": 393}
    split = split_dataset(dataset, "fold:4")
    sizes = [len(patients(dataset, part)) for part in (split.train, split.val, split.test)]
    assert sizes == [77, 11, 22]


@pytest.mark.parametrize("spec", ["", "images", "fold:5", "fold:-1", "fold:x", "fold:", "patients"])
def test_unknown_split(spec: str) -> None:
    with pytest.raises(UsageError, match="no split is named") as caught:
        split_dataset(made([2] * 10), spec)
    assert "image, patient, official, fold:0 ... fold:4" in caught.value.hint


def test_too_few_samples_or_patients() -> None:
    assert split_dataset(made([6]), "image").counts() == {"train": 4, "val": 1, "test": 1}
    with pytest.raises(InputError, match="has 5 samples"):
        split_dataset(made([5]), "image")
    check_partition(made([1] * 5), split_dataset(made([1] * 5), "fold:4"))
    with pytest.raises(InputError, match="has 4 patients; a patient split needs at least 5"):
        split_dataset(made([9] * 4), "patient")


def test_patients_unknown() -> None:
    dataset = made([1] * 30, grouped=False)
    assert not split_dataset(dataset, "image").leaky
    with pytest.raises(InputError, match="does not say which images belong to one patient") as caught:
        split_dataset(dataset, "patient")
    assert "--group" in caught.value.hint
