"""CIFAR-100's official layout, in small: what is read, how it is split, and what is refused."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.cifar import part, pickled, write_cifar
from edgemamba.data import ClassDataset, data_ref, default_data, default_split, open_dataset, open_ref, split_dataset
from edgemamba.errors import InputError, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_cifar(tmp_path / "set")


def opened(root: Path) -> ClassDataset:
    dataset = open_dataset("cifar100", root)
    assert isinstance(dataset, ClassDataset)
    return dataset


def test_pictures_and_classes(root: Path) -> None:
    dataset = opened(root)
    assert dataset.labels == ("disc", "square", "cross", "ring")
    assert len(dataset.samples) == 4 * 36
    document = pickle.loads((root / "cifar-100-python" / "test").read_bytes(), encoding="bytes")
    for i in (0, 5, 23):
        image, truth = dataset.read(120 + i)
        assert dataset.samples[120 + i].id == f"test/{i:05d}"
        assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
        # Plane by plane: red, green, blue.
        np.testing.assert_array_equal(image[7, 9], document[b"data"][i].reshape(3, 1024)[:, 7 * 32 + 9])
        assert int(truth) == dataset.targets[120 + i] == document[b"fine_labels"][i]


def test_the_official_test_part_and_a_hashed_tenth_of_every_class(root: Path) -> None:
    dataset = opened(root)
    split = split_dataset(dataset, "official")
    assert split.counts() == {"train": 108, "val": 12, "test": 24}
    assert all(dataset.samples[i].id.startswith("test/") for i in split.test)
    assert not split.leaky
    for target in range(4):
        mine = [
            s.id for s, t in zip(dataset.samples, dataset.targets, strict=True) if t == target and s.part == "train"
        ]
        first = sorted(mine, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:3]
        assert {dataset.samples[i].id for i in split.val if dataset.targets[i] == target} == set(first)


@pytest.mark.parametrize("spec", ["image", "fold:1"])
def test_training_and_test_are_not_mixed(root: Path, spec: str) -> None:
    with pytest.raises(UsageError, match="has a test part of its own") as caught:
        split_dataset(opened(root), spec)
    assert "--split official" in caught.value.hint


def test_it_names_no_patients(root: Path) -> None:
    with pytest.raises(InputError, match="does not say which images belong to one patient") as caught:
        split_dataset(opened(root), "patient")
    assert "--split official" in caught.value.hint


def test_found_by_its_layout(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (root, root / "cifar-100-python"):
        monkeypatch.setenv("EDGEMAMBA_DATA", str(place))
        assert default_data() == ("cifar100", place)
        assert len(opened(place).samples) == 144
    assert default_split("cifar100", root) == "official"


def test_record_opens_it_again(root: Path) -> None:
    dataset = opened(root)
    split = split_dataset(dataset, "official")
    again, same = open_ref(data_ref(dataset, split))
    assert again.samples == dataset.samples and same == split
    path = root / "cifar-100-python" / "test"
    document = pickle.loads(path.read_bytes(), encoding="bytes")
    document[b"data"][0, 0] ^= 1
    path.write_bytes(pickled(document))
    with pytest.raises(InputError, match="not what was recorded"):
        open_ref(data_ref(dataset, split).model_copy(update={"fingerprint": "0" * 64}))


def changed(root: Path, file: str, **values: Any) -> None:
    """Rewrite one file with other entries; None takes one out."""
    path = root / "cifar-100-python" / file
    document = pickle.loads(path.read_bytes(), encoding="bytes")
    for key, value in values.items():
        if value is None:
            del document[key.encode()]
        else:
            document[key.encode()] = value
    path.write_bytes(pickled(document))


@pytest.mark.parametrize(
    ("file", "values", "match"),
    [
        ("train", {"fine_labels": [4] + [0] * 119}, "label of picture 0 is 4, not a whole number from 0 to 3"),
        ("test", {"fine_labels": [0] * 23 + [-1]}, "label of picture 23 is -1"),
        ("test", {"fine_labels": [True] * 24}, "label of picture 0 is True"),
        ("test", {"fine_labels": [0] * 5}, "fine_labels has 5 entries for 24 pictures"),
        ("test", {"fine_labels": None}, "has no fine_labels; it has batch_label, coarse_labels, data and 1 more"),
        ("test", {"data": np.zeros((24, 3071), np.uint8)}, r"data is uint8 \(24, 3071\), not uint8 \(N, 3072\)"),
        ("test", {"data": np.zeros((24, 3072), np.float32)}, "data is float32"),
        ("test", {"data": b"pixels"}, "data is bytes, not"),
        ("test", {"data": np.zeros((0, 3072), np.uint8), "fine_labels": []}, "holds no pictures"),
        ("meta", {"fine_label_names": [b"a", b"b", b"a", b"c"]}, "two classes have one name"),
        ("meta", {"fine_label_names": [b"\xff", b"b"]}, "a name that is not text"),
        ("meta", {"fine_label_names": [b"a"]}, "not a list of at least two names"),
    ],
)
def test_contents_that_do_not_fit(root: Path, file: str, values: dict[str, Any], match: str) -> None:
    changed(root, file, **values)
    with pytest.raises(InputError, match=match) as caught:
        opened(root)
    assert "cifar-100-python" in caught.value.hint


def test_damaged_and_foreign_files(root: Path, tmp_path: Path) -> None:
    path = root / "cifar-100-python" / "train"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="train is damaged"):
        opened(root)
    path.write_bytes(pickled([1, 2]))
    with pytest.raises(InputError, match="holds no dictionary"):
        opened(root)
    path.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(InputError, match=r"is refused: its pickle wants to call os\.system"):
        opened(root)
    with pytest.raises(InputError, match=r"has no cifar-100-python/\{train,test,meta\}"):
        open_dataset("cifar100", tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        open_dataset("cifar100", tmp_path / "none")


def test_the_generator_writes_what_the_archive_holds() -> None:
    document = part("train", np.zeros((2, 32, 32, 3), np.uint8), [3, 7])
    assert set(document) == {b"filenames", b"batch_label", b"fine_labels", b"coarse_labels", b"data"}
    assert document[b"coarse_labels"] == [0, 1]
