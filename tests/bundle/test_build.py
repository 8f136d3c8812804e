"""A Bundle is complete, says what it is, can be made again byte for byte, and exists only when it works."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from board import bundles

from edgemamba import bundle
from edgemamba.board import runner
from edgemamba.bundle import golden
from edgemamba.bundle.check import sums_text
from edgemamba.errors import EdgemambaError, InputError, VerificationError
from edgemamba.presets import targets
from edgemamba.records import FileEntry, Manifest, load_record

ALWAYS = {
    "manifest.json",
    "SHA256SUMS",
    "README.md",
    "MODEL_CARD.md",
    "LICENSE",
    "requirements.txt",
    "predict.py",
    "agent.py",
    "runner.py",
    "bundle_files.py",
    "images.py",
    "outputs.py",
    "sensors.py",
    "summary.py",
    "golden.npz",
}
TENSORRT = {"build_engine.py", "trt_session.py", "cudart.py"}


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> bundles.Exported:
    return bundles.export_onnx(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> bundles.Exported:
    return bundles.export_tflite(tmp_path_factory.mktemp("tflite"))


@pytest.mark.parametrize(
    ("target", "format", "runtime", "requirement"),
    [
        ("cpu", "onnx", "onnxruntime", "onnxruntime"),
        ("cpu", "tflite", "litert", "ai-edge-litert"),
        ("raspberry-pi-5", "tflite", "litert", "ai-edge-litert"),
        ("raspberry-pi-4", "onnx", "onnxruntime", "onnxruntime"),
        ("jetson-orin-nano", "onnx", "tensorrt", None),
    ],
)
def test_what_is_in_it(
    onnx: bundles.Exported,
    tflite: bundles.Exported,
    tmp_path: Path,
    target: str,
    format: str,
    runtime: str,
    requirement: str | None,
) -> None:
    exported = onnx if format == "onnx" else tflite
    manifest = bundles.build(tmp_path / "out", exported, target)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == ALWAYS | {f"model.{format}"} | (TENSORRT if runtime == "tensorrt" else set())
    assert {entry.path for entry in manifest.files} == names - {"manifest.json", "SHA256SUMS"}
    assert (manifest.target, manifest.format, manifest.runtime) == (target, format, runtime)
    assert (tmp_path / "out" / f"model.{format}").read_bytes() == exported.path.read_bytes()
    lines = (tmp_path / "out" / "requirements.txt").read_text().split()
    runtimes = [line for line in lines if line.startswith(("onnxruntime", "ai-edge-litert", "tensorrt"))]
    assert [line.split(">")[0] for line in runtimes] == ([requirement] if requirement else [])
    assert {"numpy", "pillow"} <= {line.split(">")[0].lower() for line in lines}
    assert bundle.check(tmp_path / "out") == manifest
    assert load_record(tmp_path / "out" / "manifest.json", Manifest) == manifest


def test_every_target_can_be_built(onnx: bundles.Exported, tflite: bundles.Exported, tmp_path: Path) -> None:
    for name, target in targets().items():
        exported = onnx if target.format == "onnx" else tflite
        manifest = bundles.build(tmp_path / name, exported, name)
        assert manifest.runtime == target.runtime
        text = (tmp_path / name / "README.md").read_text()
        assert target.title in text
        for command in (
            "sha256sum -c SHA256SUMS",
            "python predict.py image.tif",
            "python agent.py",
            "-m venv",
        ):
            assert command in text
        assert ("build_engine.py" in text) == (target.runtime == "tensorrt")
        assert ("jetson_clocks" in text) == (target.kind == "jetson")
        assert ("vcgencmd" in text) == (target.kind == "raspberry-pi")
        assert "Not a medical device" in text


def test_sha256sum_agrees(onnx: bundles.Exported, tmp_path: Path) -> None:
    bundles.build(tmp_path / "out", onnx, "cpu")
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(list((tmp_path / "out").iterdir())) - 1
    assert all(line.endswith(": OK") for line in lines)


def test_built_twice_it_is_the_same(onnx: bundles.Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for name in ("first", "second"):
        bundles.build(tmp_path / name, onnx, "jetson")
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "second").iterdir())
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    assert load_record(tmp_path / "first" / "manifest.json", Manifest).created == "2023-11-14T22:13:20Z"


def test_nothing_private_is_shipped(onnx: bundles.Exported, tmp_path: Path) -> None:
    manifest = bundles.build(tmp_path / "out", onnx, "cpu")
    assert manifest.data is not None
    assert manifest.data.root is None
    assert manifest.data.fingerprint == bundles.DATA.fingerprint
    for path in (tmp_path / "out").iterdir():
        for private in ("/somewhere/private", str(tmp_path), str(Path.home() / ".cache")):
            assert private.encode() not in path.read_bytes()


def test_a_graph_with_stack_traces_is_refused(tmp_path: Path) -> None:
    exported = bundles.export_onnx(tmp_path, traces=True)
    assert str(Path(bundles.__file__).parent).encode() in exported.path.read_bytes()
    with pytest.raises(VerificationError, match=r"model\.onnx would tell the local path"):
        bundles.build(tmp_path / "out", exported, "cpu")
    assert not (tmp_path / "out").exists()


def test_golden_pictures_are_phantoms_with_lesions() -> None:
    pictures = golden.golden_images(bundles.SIZE)
    assert pictures.shape == (2, *bundles.SIZE, 3)
    assert pictures.dtype == np.uint8
    assert np.array_equal(pictures, golden.golden_images(bundles.SIZE))
    marked = bundles.reference(pictures.transpose(0, 3, 1, 2) / np.float32(255.0)) >= 0.5
    assert (marked.mean(axis=(1, 2)) > 0.01).all()


def test_the_card(onnx: bundles.Exported, tmp_path: Path) -> None:
    bundles.build(tmp_path / "out", onnx, "cpu", quantization={"scheme": "int8 | weights", "images": 32})
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    for words in (
        "Not a medical device",
        "49,457 parameters",
        "| test.dice_pooled | 0.8125 |",
        "| mask_agreement | 1 |",
        "| scheme | int8 \\| weights |",
        "Split `patient`: 7 train, 2 val, 2 test",
        "No patient's data",
        "Apache-2.0",
    ):
        assert words in card
    leaky = bundles.DATA.model_copy(update={"split": "image", "name": "lgg"})
    bundles.build(tmp_path / "leaky", onnx, "cpu", data=leaky, metrics={})
    card = (tmp_path / "leaky" / "MODEL_CARD.md").read_text()
    assert "its figures flatter the network" in card
    assert "No evaluation was recorded" in card
    bundles.build(tmp_path / "none", onnx, "cpu", data=None)
    assert "Not recorded." in (tmp_path / "none" / "MODEL_CARD.md").read_text()


def test_an_existing_folder_is_kept(onnx: bundles.Exported, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="exists"):
        bundles.build(out, onnx, "cpu")
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match=r"is not replaced: it has no manifest\.json"):
        bundles.build(out, onnx, "cpu", force=True)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_force_replaces_a_bundle(onnx: bundles.Exported, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bundles.build(out, onnx, "cpu")
    (out / "left_over.txt").write_text("from before")
    bundles.build(out, onnx, "cpu", force=True)
    assert not (out / "left_over.txt").exists()
    bundle.check(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_wrong_artifact_leaves_nothing(tmp_path: Path) -> None:
    wrong = bundles.export_onnx(tmp_path, flip=True)
    with pytest.raises(VerificationError, match="differs from PyTorch on the golden pictures"):
        bundles.build(tmp_path / "out", wrong, "cpu")
    assert [path.name for path in tmp_path.iterdir()] == [wrong.path.name]


def test_another_size_is_refused(tmp_path: Path) -> None:
    small = bundles.export_onnx(tmp_path, size=(32, 32))
    with pytest.raises(VerificationError, match=r"has shape \[1, 3, 32, 32\], expected \[1, 3, 64, 64\]"):
        bundles.build(tmp_path / "out", small, "cpu")
    assert not (tmp_path / "out").exists()


def test_precision_decides_the_limits(onnx: bundles.Exported, tmp_path: Path) -> None:
    limits = []
    for precision in ("fp32", "fp16", "int8"):
        exported = dataclasses.replace(onnx, precision=precision)
        manifest = bundles.build(tmp_path / precision, exported, "cpu")
        assert manifest.name == f"ul-vm-unet-cpu-{precision}"
        limits.append((manifest.golden.mean_tolerance, -manifest.golden.agreement))
    assert limits == sorted(limits)
    assert len(set(limits)) == 3


def test_the_level_follows_the_graph(onnx: bundles.Exported, tmp_path: Path) -> None:
    assert bundles.build(tmp_path / "convolutions", onnx, "cpu").onnxruntime_level == "all"
    exported, reference = bundles.export_network(tmp_path, "ul-vm-unet")
    manifest = bundles.build(tmp_path / "scan", exported, "cpu", reference=reference)
    assert manifest.onnxruntime_level == "extended"
    _, session = bundle.open_bundle(tmp_path / "scan")
    x = np.random.default_rng(0).random((1, 3, *bundles.SIZE), np.float32)
    assert np.abs(session.run(x)[:, 0] - reference(x)).max() < 1e-5


def test_opening_checks_first(onnx: bundles.Exported, tmp_path: Path) -> None:
    bundles.build(tmp_path / "out", onnx, "jetson")
    manifest, session = bundle.open_bundle(tmp_path / "out")
    assert manifest.runtime == "tensorrt"
    x = np.random.default_rng(0).random((1, 3, *bundles.SIZE), np.float32)
    assert np.abs(session.run(x)[:, 0] - bundles.reference(x)).max() < 2e-6
    with pytest.raises(EdgemambaError) as caught:
        bundle.open_bundle(tmp_path / "out", runtime="tensorrt")
    assert caught.value.exit_code == 4
    assert caught.value.hint
    (tmp_path / "out" / "runner.py").write_text("import os\n")
    with pytest.raises(InputError, match=r"runner\.py has"):
        bundle.open_bundle(tmp_path / "out")


def test_a_bundle_works_wherever_it_is_copied(onnx: bundles.Exported, tmp_path: Path) -> None:
    bundles.build(tmp_path / "out", onnx, "cpu")
    moved = Path(shutil.copytree(tmp_path / "out", tmp_path / "other place" / "ünïcode"))
    shutil.rmtree(tmp_path / "out")
    assert bundle.check(moved).name == "ul-vm-unet-cpu-fp32"
    assert json.loads((moved / "manifest.json").read_text())["stages"][0]["facts"] == {"nodes": 7}


def test_a_bundle_of_the_first_schema_is_taken(onnx: bundles.Exported, tmp_path: Path) -> None:
    """As edgemamba wrote them while it knew masks only."""
    folder = tmp_path / "out"
    bundles.build(folder, onnx, "cpu")
    document = json.loads((folder / "manifest.json").read_text())
    document["schema"] = "edgemamba.bundle/1"
    document["golden"]["mask_agreement"] = document["golden"].pop("agreement")
    del document["labels"]
    (folder / "manifest.json").write_text(json.dumps(document))
    entries = [FileEntry(**entry) for entry in document["files"]]
    (folder / "SHA256SUMS").write_text(sums_text(folder, entries))
    manifest, session = bundle.open_bundle(folder)
    assert manifest.golden.agreement == document["golden"]["mask_agreement"] and manifest.labels == []
    board = runner.load_manifest(folder)
    runner.check_files(folder, board)
    assert runner.check_golden(folder, board, session)["ok"]
