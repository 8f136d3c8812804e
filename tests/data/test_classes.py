"""A user's class folders, divided or not, good and bad; the built-in figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.samples import blob, picture
from edgemamba.console import Console
from edgemamba.data import (
    ClassDataset,
    built_in,
    data_ref,
    default_data,
    default_split,
    load_arrays,
    open_dataset,
    open_ref,
    refuse_other_task,
    split_dataset,
)
from edgemamba.errors import InputError, UsageError

QUIET = Console(quiet=True)
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write pictures to paths like ``train/cat/1.png`` below one folder."""

    def write(*names: str, size: tuple[int, int] = (20, 24)) -> Path:
        root = tmp_path / "set"
        for seed, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(seed, *size)).save(path)
        return root

    return write


def many(*places: str, count: int = 10) -> list[str]:
    return [f"{place}/p{number}_{place[-1]}.png" for place in places for number in range(count)]


def classes(root: Path, **options: str) -> ClassDataset:
    dataset = open_dataset("classes", root, **options)
    assert isinstance(dataset, ClassDataset)
    return dataset


def test_a_folder_is_a_class(make: Make) -> None:
    root = make(*many("cat", "dog", "eel"))
    (root / "cat" / "notes.txt").write_text("x")
    (root / ".hidden").mkdir()
    dataset = classes(root)
    assert dataset.labels == ("cat", "dog", "eel")
    assert len(dataset.samples) == 30 and sorted(set(dataset.targets)) == [0, 1, 2]
    for index in (0, 17):
        image, truth = dataset.read(index)
        label, name = dataset.samples[index].id.split("/")
        assert dataset.labels[int(truth)] == label
        np.testing.assert_array_equal(image, np.asarray(Image.open(root / label / name)))
    split = split_dataset(dataset, "image")
    assert split.counts() == {"train": 24, "val": 3, "test": 3}
    for part in (split.train, split.val, split.test):
        assert {dataset.targets[i] for i in part} == {0, 1, 2}


def test_arrays_have_classes_and_mixed_sizes_are_told(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(*many("cat", "dog", count=3))
    make("cat/p0_t.png", size=(50, 40))
    dataset = classes(root)
    arrays = load_arrays(dataset, range(6), (16, 16), Console())
    assert arrays.images.shape == (6, 3, 16, 16)
    assert arrays.truths.tolist() == list(dataset.targets)
    assert "classes: pictures of 2 sizes, 24x20 to 40x50, are resized to 16x16" in capsys.readouterr().err


def test_parts_of_its_own(make: Make) -> None:
    root = make(*many("train/cat", "train/dog"), *many("test/cat", "test/dog", count=2))
    dataset = classes(root)
    assert default_split("classes", root) == "official"
    split = split_dataset(dataset, "official")
    assert split.counts() == {"train": 18, "val": 2, "test": 4}
    make(*many("valid/cat", count=3))
    assert split_dataset(classes(root), "official").counts() == {"train": 20, "val": 3, "test": 4}
    again, same = open_ref(data_ref(dataset := classes(root), split_dataset(dataset, "official")))
    assert again.samples == dataset.samples and same.counts() == {"train": 20, "val": 3, "test": 4}


def test_what_is_held_out_is_the_test(make: Make) -> None:
    root = make(*many("train/cat", "train/dog"), *many("val/cat", "val/dog", count=2))
    dataset = classes(root)
    split = split_dataset(dataset, "official")
    assert {dataset.samples[i].part for i in split.test} == {"val"}
    assert split.counts() == {"train": 18, "val": 2, "test": 4}


def test_a_patient_in_two_parts_is_refused_on_a_patient_split(make: Make) -> None:
    root = make(*many("train/cat", "train/dog"), "test/cat/p3_x.png", "test/dog/q1_x.png", "test/dog/q2_x.png")
    dataset = classes(root, group="_")
    with pytest.raises(
        InputError, match=r"the patient p3 of classes is in (train|test)/ and in (train|test)/"
    ) as caught:
        split_dataset(dataset, "patient")
    assert "--split official" in caught.value.hint
    assert split_dataset(dataset, "official").leaky
    (root / "test" / "cat" / "p3_x.png").rename(root / "test" / "cat" / "q3_x.png")
    split = split_dataset(classes(root, group="_"), "patient")
    assert split.counts() == {"train": 18, "val": 2, "test": 3} and not split.leaky


def test_patients_of_undivided_folders(make: Make) -> None:
    dataset = classes(make(*many("cat", "dog")), group="^(p[0-9]+)_")
    split = split_dataset(dataset, "patient")
    assert {dataset.samples[i].patient for i in split.test} & {dataset.samples[i].patient for i in split.train} == set()


def test_bad_folders(make: Make, tmp_path: Path) -> None:
    root = make(*many("cat", "dog", count=4))
    (root / "eel").mkdir()
    with pytest.raises(InputError, match=r"1 class folders have no pictures: .*eel") as caught:
        classes(root)
    assert "remove" in caught.value.hint
    (root / "eel").rmdir()
    split_dataset(classes(root), "image")
    for number in range(2):
        (root / "dog" / f"p{number}_g.png").unlink()
    with pytest.raises(InputError, match="dog has 2 images; training, validation and test need 3 of each class"):
        split_dataset(classes(root), "image")
    (root / "cat" / "p0_t.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"p0_t\.png is not an image"):
        load_arrays(classes(root), range(6), (16, 16), QUIET)
    with pytest.raises(InputError, match="the group does not fit the file name"):
        classes(root, group="#")
    with pytest.raises(InputError, match="has 0 class folders; at least 2"):
        classes(root / "cat")
    with pytest.raises(InputError, match="is not a folder"):
        classes(tmp_path / "none")


def test_a_class_without_training(make: Make) -> None:
    root = make(*many("train/cat", "train/dog"), "test/owl/1.png")
    with pytest.raises(InputError, match=r"owl: in .*test, and no class of .*train"):
        classes(root)
    make("validation/cat/1.png", "val/cat/1.png")
    with pytest.raises(InputError, match=r"has val/ and validation/"):
        classes(root)


def test_layouts_are_told_apart(make: Make, make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for root, name in ((make_folder(["a", "b"]), "folder"), (make(*many("cat", "dog", count=1)), "classes")):
        monkeypatch.setenv("EDGEMAMBA_DATA", str(root))
        assert default_data() == (name, root)


def test_pairs_in_parts_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for part, stems in (("train", [f"p{k}_1" for k in range(10)]), ("test", ["q1_1", "q1_2"])):
        for name in ("images", "masks"):
            (root / part / name).mkdir(parents=True)
        for seed, stem in enumerate(stems):
            Image.fromarray(picture(seed)).save(root / part / "images" / f"{stem}.png")
            Image.fromarray(blob(seed) * 255).save(root / part / "masks" / f"{stem}.png")
    assert default_split("folder", root) == "official"
    dataset = open_dataset("folder", root, group="_")
    for spec in ("official", "patient"):
        assert split_dataset(dataset, spec).counts() == {"train": 9, "val": 1, "test": 2}
    (root / "test" / "images" / "q1_1.png").rename(root / "test" / "images" / "p4_9.png")
    (root / "test" / "masks" / "q1_1.png").rename(root / "test" / "masks" / "p4_9.png")
    with pytest.raises(InputError, match="the patient p4 of folder is in"):
        split_dataset(open_dataset("folder", root, group="_"), "patient")
    with pytest.raises(UsageError, match="has a test part of its own"):
        split_dataset(dataset, "fold:0")


def test_data_that_does_not_come_divided() -> None:
    with pytest.raises(UsageError, match="phantoms does not come divided"):
        split_dataset(open_dataset("phantoms", patients=6, slices=1), "official")


def test_figures() -> None:
    dataset = open_dataset("shapes", classes=3, images=4, size=24, seed=5)
    assert isinstance(dataset, ClassDataset)
    assert dataset.labels == ("disc", "square", "cross") and dataset.targets == (0,) * 4 + (1,) * 4 + (2,) * 4
    one, other = dataset.picture(5), dataset.picture(6)
    assert one.shape == (24, 24, 3) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, open_dataset("shapes", classes=3, images=4, size=24, seed=5).read(5)[0])
    assert np.abs(one.astype(int) - other).mean() > 10
    assert dataset.fingerprint() != open_dataset("shapes", classes=3, images=4, size=24).fingerprint()
    with pytest.raises(UsageError, match="shapes: classes is 9"):
        open_dataset("shapes", classes=9)


def test_every_pixel_is_fixed() -> None:
    """Another value of this sum is another data set: raise ``shapes.GENERATION``."""
    dataset = open_dataset("shapes", images=3)
    assert [int(dataset.read(i)[0].astype(np.int64).sum()) for i in (0, 8, 13, 23)] == [311245, 585667, 490257, 519179]


def test_a_model_of_another_task_is_refused() -> None:
    assert (built_in("segmentation"), built_in("classification")) == ("phantoms", "shapes")
    refuse_other_task("cifar100", "classification", "vim")
    with pytest.raises(
        UsageError, match="vim needs a class for each image; the lgg data has a mask for each"
    ) as caught:
        refuse_other_task("lgg", "classification", "vim")
    assert "--data shapes, cifar100, classes" in caught.value.hint
