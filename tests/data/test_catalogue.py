"""Opening by name, the environment, arrays in memory, and records that open again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.samples import blob, picture
from edgemamba.board import images
from edgemamba.console import Console
from edgemamba.data import (
    DATASETS,
    data_ref,
    default_data,
    load_arrays,
    open_dataset,
    open_ref,
    split_dataset,
)
from edgemamba.errors import InputError, UsageError
from edgemamba.records import DataRef

QUIET = Console(quiet=True)
Make = Callable[..., Path]


def test_listing_needs_no_numpy() -> None:
    code = (
        "import sys, edgemamba.data as data\n"
        "assert all(info.summary for info in data.DATASETS.values())\n"
        "print([name for name in ('numpy', 'PIL', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_table_names_its_rows() -> None:
    assert (
        list(DATASETS)
        == [info.name for info in DATASETS.values()]
        == [
            "phantoms",
            "lgg",
            "folder",
            "shapes",
            "cifar100",
            "classes",
        ]
    )


@pytest.mark.parametrize(
    ("name", "root", "options", "match", "hint"),
    [
        ("phantom", None, {}, "no data set is named 'phantom'", "did you mean phantoms"),
        ("phantoms", "here", {}, "have no folder", "leave the data root out"),
        ("phantoms", None, {"slice": 3}, "no option 'slice'", "did you mean slices"),
        ("lgg", None, {}, "needs the folder", "--data-root DIR"),
        ("lgg", "here", {"group": "_"}, "no option 'group'", "takes no options"),
        ("folder", "here", {"groups": "_"}, "no option 'groups'", "did you mean group"),
    ],
)
def test_what_does_not_fit(name: str, root: str | None, options: dict[str, object], match: str, hint: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        open_dataset(name, root, **options)
    assert hint in caught.value.hint


def test_environment_names_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lgg_root: Path, make_folder: Make
) -> None:
    monkeypatch.delenv("EDGEMAMBA_DATA", raising=False)
    assert default_data() is None
    for value in (lgg_root, lgg_root / "kaggle_3m"):
        monkeypatch.setenv("EDGEMAMBA_DATA", str(value))
        assert default_data() == ("lgg", value)
    monkeypatch.setenv("EDGEMAMBA_DATA", str(make_folder(["a"])))
    assert default_data() == ("folder", tmp_path / "pairs")
    monkeypatch.setenv("EDGEMAMBA_DATA", str(tmp_path))
    with pytest.raises(InputError, match="holds none of: kaggle_3m"):
        default_data()
    monkeypatch.setenv("EDGEMAMBA_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="is not a folder"):
        default_data()


def test_arrays_are_what_the_board_would_see(make_folder: Make) -> None:
    dataset = open_dataset("folder", make_folder([f"s{k}" for k in range(7)]))
    arrays = load_arrays(dataset, (5, 0, 3), (32, 16), QUIET)
    assert (arrays.images.dtype, arrays.images.shape) == (np.uint8, (3, 3, 32, 16))
    assert (arrays.truths.dtype, arrays.truths.shape) == (np.uint8, (3, 32, 16))
    assert [sample.id for sample in arrays.samples] == ["s5", "s0", "s3"]
    for place, index in enumerate((5, 0, 3)):
        image, mask = dataset.read(index)
        np.testing.assert_array_equal(arrays.images[place][None], images.to_input(image, (32, 16), 1.0))
        assert set(np.unique(arrays.truths[place])) <= {0, 1}
        assert bool(arrays.truths[place].any()) == bool(mask.any())


def test_arrays_at_the_files_own_size_are_exact(lgg_root: Path) -> None:
    arrays = load_arrays(open_dataset("lgg", lgg_root), range(4), (20, 24), QUIET)
    for place, number in enumerate((1, 2, 10, 11)):
        np.testing.assert_array_equal(arrays.images[place].transpose(1, 2, 0), picture(number))
        np.testing.assert_array_equal(arrays.truths[place], blob(number))


def test_bad_files_are_counted_and_the_first_named(make_folder: Make) -> None:
    root = make_folder([f"s{k}" for k in range(8)])
    for k in (1, 2, 4, 5, 7):
        (root / "images" / f"s{k}.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"5 of 8 samples cannot be used: .*s1.*; .*s2.*; .*s4.*; and 2 more$"):
        load_arrays(open_dataset("folder", root), range(8), (16, 16), QUIET)
    with pytest.raises(InputError, match=r"s1\.png is not an image that can be read$"):
        load_arrays(open_dataset("folder", root), (0, 1), (16, 16), QUIET)


def test_reading_many_files_tells_how_far_it_is(make_folder: Make, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = open_dataset("folder", make_folder(["a", "b"]))
    load_arrays(dataset, range(2), (16, 16), Console(interactive=True))
    shown = capsys.readouterr()
    assert "reading folder" in shown.err
    assert not shown.out


def test_record_opens_the_same_phantoms() -> None:
    dataset = open_dataset("phantoms", patients=10, slices=3, size=32, seed=5)
    split = split_dataset(dataset, "fold:2")
    ref = DataRef.model_validate_json(data_ref(dataset, split).model_dump_json())
    assert ref.counts == split.counts()
    again, same = open_ref(ref)
    assert again.samples == dataset.samples
    assert same == split
    with pytest.raises(UsageError, match="have no folder"):
        open_ref(ref, "somewhere")
    with pytest.raises(InputError, match="not what was recorded"):
        open_ref(ref.model_copy(update={"options": {**ref.options, "seed": 6}}))


def test_record_opens_the_same_files_where_they_are_now(lgg_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset("lgg", lgg_root)
    split = split_dataset(dataset, "patient")
    ref = DataRef.model_validate_json(data_ref(dataset, split).model_dump_json())
    assert ref.root == str(lgg_root)
    assert open_ref(ref)[1] == split
    moved = tmp_path / "moved"
    lgg_root.rename(moved)
    with pytest.raises(InputError, match="is gone") as caught:
        open_ref(ref)
    assert "--data-root" in caught.value.hint
    assert open_ref(ref, moved)[0].samples == dataset.samples
    with pytest.raises(InputError, match="names no folder"):
        open_ref(ref.model_copy(update={"root": None}))
    name = dataset.samples[0].patient
    Image.fromarray(picture(77)).save(moved / "kaggle_3m" / name / f"{name}_1.tif")
    with pytest.raises(InputError, match=r"not what was recorded: fingerprint [0-9a-f]{12}, expected [0-9a-f]{12}"):
        open_ref(ref, moved)


def test_record_keeps_the_group(make_folder: Make) -> None:
    root = make_folder([f"p{patient}_{number}" for patient in range(5) for number in range(2)])
    dataset = open_dataset("folder", root, group="_")
    again, split = open_ref(data_ref(dataset, split_dataset(dataset, "fold:1")))
    assert again.samples == dataset.samples
    assert split.spec == "fold:1"
