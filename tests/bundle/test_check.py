"""Whatever is done to a Bundle, check says so and names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board import bundles
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemamba import bundle
from edgemamba.board import bundle_files
from edgemamba.bundle.check import sums_text
from edgemamba.errors import InputError
from edgemamba.records import Manifest, load_record


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("original")
    bundles.build(base / "bundle", bundles.export_onnx(base), "jetson")
    return base / "bundle"


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def faults(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        bundle.check(folder)
    assert "\n" not in caught.value.message
    return caught.value.message


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and make SHA256SUMS agree with it."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    (folder / "SHA256SUMS").write_text(sums_text(folder, load_record(path, Manifest).files))


def test_intact(folder: Path) -> None:
    manifest = bundle.check(folder)
    assert manifest.target == "jetson-orin-nano"
    bundle_files.check_files(folder, bundle_files.load_manifest(folder))


def test_everything_wrong_is_listed(folder: Path) -> None:
    (folder / "LICENSE").unlink()
    (folder / "predict.py").write_bytes((folder / "predict.py").read_bytes() + b"#")
    content = bytearray((folder / "model.onnx").read_bytes())
    content[100] ^= 1
    (folder / "model.onnx").write_bytes(content)
    (folder / "extra.txt").write_text("x")
    (folder / "deep").mkdir()
    (folder / "deep" / "other.bin").write_bytes(b"x")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("MODEL_CARD.md")
    message = faults(folder)
    for words in (
        "LICENSE is missing",
        "predict.py has",
        "model.onnx has SHA-256",
        "extra.txt is not listed",
        "deep/other.bin is not listed",
        "README.md is or lies behind a symbolic link",
    ):
        assert words in message
    with pytest.raises(bundle_files.BundleError) as caught:
        bundle_files.check_files(folder, bundle_files.load_manifest(folder))
    for words in (
        "LICENSE is missing",
        "predict.py has",
        "model.onnx has SHA-256",
        "README.md is or lies behind",
    ):
        assert words in caught.value.message


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_changed_byte_is_found(original: Path, data: st.DataObject) -> None:
    paths = sorted(original.iterdir())
    path = data.draw(st.sampled_from(paths), label="file")
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1), label="byte")
    bit = data.draw(st.integers(0, 7), label="bit")
    try:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        with pytest.raises(InputError) as caught:
            bundle.check(original)
        assert path.name in caught.value.message
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/passwd", "a/../../b", "./x", "a//b", "C:x", "a\\b", "a\0b"])
def test_names_that_leave_the_folder(folder: Path, name: str) -> None:
    (folder.parent / "outside.txt").write_text("x")
    edit(folder, lambda document: document["files"].append({"path": name, "bytes": 1, "sha256": "0" * 64}))
    assert repr(name) in faults(folder)
    with pytest.raises(bundle_files.BundleError, match="is damaged"):
        bundle_files.check_files(folder, bundle_files.load_manifest(folder))


@given(st.text(alphabet="ab/.\\:\0", max_size=8))
def test_an_accepted_name_stays_inside(name: str) -> None:
    if not bundle_files.unsafe_name(name):
        resolved = (Path("/bundle") / name).resolve()
        assert Path("/bundle") in resolved.parents
        assert resolved == Path("/bundle") / name


def test_duplicates_and_case(folder: Path) -> None:
    def double(document: dict[str, Any]) -> None:
        license = next(entry for entry in document["files"] if entry["path"] == "LICENSE")
        document["files"] += [license, {**license, "path": "license"}]

    shutil.copyfile(folder / "LICENSE", folder / "license")
    edit(folder, double)
    message = faults(folder)
    assert "LICENSE is listed 2 times" in message
    assert "LICENSE and license differ only in case" in message


def test_the_manifest_does_not_list_itself(folder: Path) -> None:
    entry = {"path": "manifest.json", "bytes": 1, "sha256": "0" * 64}
    edit(folder, lambda document: document["files"].append(entry))
    assert "manifest.json lists itself" in faults(folder)


@pytest.mark.parametrize("key", ["artifact", "golden"])
def test_what_is_used_is_listed(folder: Path, key: str) -> None:
    def point_elsewhere(document: dict[str, Any]) -> None:
        if key == "golden":
            document["golden"]["file"] = "other.npz"
        else:
            document["artifact"] = "../other.onnx"

    edit(folder, point_elsewhere)
    assert "is used but not listed" in faults(folder)
    with pytest.raises(bundle_files.BundleError, match="is used but not listed"):
        bundle_files.check_files(folder, bundle_files.load_manifest(folder))


def test_symbolic_links_are_refused(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "model.onnx").rename(outside / "model.onnx")
    (folder / "model.onnx").symlink_to(outside / "model.onnx")
    message = faults(folder)
    for name in ("link", "dangling", "model.onnx"):
        assert f"{name} is" in message


def test_sums_must_agree(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()
    assert "SHA256SUMS is missing" in faults(folder)
    with pytest.raises(bundle_files.BundleError, match="SHA256SUMS is missing"):
        bundle_files.check_files(folder, bundle_files.load_manifest(folder))
    (folder / "SHA256SUMS").write_bytes(b"\xff\0 nonsense")
    assert "SHA256SUMS does not agree" in faults(folder)
    with pytest.raises(bundle_files.BundleError, match="not the one that SHA256SUMS names"):
        bundle_files.check_files(folder, bundle_files.load_manifest(folder))


def test_what_the_scripts_write_is_no_fault(folder: Path) -> None:
    (folder / "agent.jsonl").write_text("{}\n")
    (folder / "predictions").mkdir()
    (folder / "predictions" / "a_mask.png").write_bytes(b"x")
    bundle.check(folder)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "runner.cpython-311.pyc").write_bytes(b"x")
    assert "__pycache__/runner.cpython-311.pyc is not listed" in faults(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "is not a valid Manifest"),
        ("not json", "is not JSON"),
        ('{"schema": "edgemamba.bundle/9"}', "is not a valid Manifest"),
    ],
)
def test_a_manifest_that_is_none(folder: Path, content: str, words: str) -> None:
    (folder / "manifest.json").write_text(content)
    assert words in faults(folder)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    assert "is not a Bundle" in faults(tmp_path)
    assert "is not a folder" in faults(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in faults(tmp_path / "file")
