"""A published checkpoint on its way to a Bundle: imported, evaluated, exported, inspected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from edgemamba.cli.main import app
from edgemamba.console import Console
from edgemamba.data import open_dataset
from edgemamba.errors import InputError, Unsupported, UsageError
from edgemamba.evaluation.command import EvaluateOptions, evaluate_subject
from edgemamba.files import sha256_file
from edgemamba.importing import import_weights
from edgemamba.presets import find_target
from edgemamba.records import ImportRecord, load_record
from edgemamba.sources import ImportedSource, TrainedSource, open_source, with_images
from edgemamba.stages import pipeline
from edgemamba.stages.inspect import inspect_subject
from edgemamba.stages.plan import Options
from edgemamba.train.distill import open_teachers

QUIET = Console(quiet=True)


@pytest.fixture
def checkpoint(source: TrainedSource, tmp_path: Path) -> Path:
    """The trained network as a DataParallel training script saves it."""
    path = tmp_path / "best.pth"
    torch.save({f"module.{name}": tensor for name, tensor in source.build().state_dict().items()}, path)
    return path


@pytest.fixture
def imported(checkpoint: Path, tmp_path: Path) -> Path:
    import_weights(checkpoint, tmp_path / "runs" / "theirs", size=(64, 64))
    return tmp_path / "runs" / "theirs"


def test_the_record_says_what_is_known_and_nothing_else(checkpoint: Path, imported: Path) -> None:
    record = load_record(imported / "import.json", ImportRecord)
    assert (record.model, record.parameters, record.size) == ("ul-vm-unet", 49_457, (64, 64))
    assert (record.file, record.file_sha256) == ("best.pth", sha256_file(checkpoint))
    assert record.changes == {"prefix_removed": "module."}
    assert sorted(path.name for path in imported.rglob("*") if path.is_file()) == [
        "import.json",
        "imported.safetensors",
    ]
    assert str(imported.parent) not in (imported / "import.json").read_text()


def test_it_is_the_newest_source_and_computes_the_same(imported: Path, source: TrainedSource) -> None:
    found = open_source(runs=imported.parent)
    assert isinstance(found, ImportedSource) and (found.name, found.data) == ("theirs", None)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found.build()(x), source.build()(x), rtol=0, atol=0)


def test_evaluation_needs_data_and_then_agrees_with_the_run(imported: Path, run_folder: Path) -> None:
    with pytest.raises(InputError, match="theirs does not say which data it was trained on") as caught:
        evaluate_subject(str(imported), EvaluateOptions(device="cpu"), QUIET)
    assert "--data" in caught.value.hint
    options = EvaluateOptions(data=("phantoms", None, {"patients": 20, "slices": 12}), split="patient", device="cpu")
    theirs = evaluate_subject(str(imported), options, QUIET)
    ours = evaluate_subject(str(run_folder), options, QUIET)
    assert theirs["protocols"] == ours["protocols"]
    assert theirs["subject"]["import"]["file"] == "best.pth"


def test_export_to_a_bundle(imported: Path, tmp_path: Path) -> None:
    source = open_source(imported)
    plan = pipeline.plan(source, find_target("cpu"), "fp32", Options(out=tmp_path / "bundle", verify_images=8))
    folder = pipeline.run(plan, QUIET)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"] is None
    assert manifest["source"]["import"]["file_sha256"] == source.document()["import"]["file_sha256"]
    assert "Not recorded." in (folder / "MODEL_CARD.md").read_text()
    assert inspect_subject(str(folder), (64, 64))["provenance"]["file"] == "best.pth"
    assert inspect_subject(str(imported), (64, 64))["state"] == "imported"


def test_int8_says_that_nothing_is_known_to_calibrate_on(imported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing is known of its data"):
        pipeline.plan(open_source(imported), find_target("cpu"), "int8", Options(out=tmp_path / "bundle"))


def test_int8_with_images_of_ones_own(imported: Path, run_folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset("phantoms", patients=4, slices=8, size=64)
    (tmp_path / "own").mkdir()
    for index in range(len(dataset.samples)):
        Image.fromarray(dataset.read(index)[0]).save(tmp_path / "own" / f"{index}.png")
    source = with_images(open_source(imported), tmp_path / "own")
    options = Options(out=tmp_path / "bundle", calibration=16, verify_images=16)
    folder = pipeline.run(pipeline.plan(source, find_target("cpu"), "int8", options), QUIET)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["precision"] == "int8" and manifest["verification"]["images"] == 16
    with pytest.raises(UsageError, match="small has its own"):
        with_images(open_source(run_folder), tmp_path / "own")


def test_it_is_no_teacher(imported: Path, source: TrainedSource) -> None:
    with pytest.raises(InputError, match="does not say on which data it was trained"):
        open_teachers([imported], source.data, 0.5, torch.device("cpu"))


def test_places_that_are_taken(checkpoint: Path, imported: Path, run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists and is not empty"):
        import_weights(checkpoint, imported)
    import_weights(checkpoint, imported, size=(32, 32), force=True)
    assert open_source(imported).size == (32, 32)
    run = shutil.copytree(run_folder, tmp_path / "run")
    with pytest.raises(InputError, match=r"has no import\.json"):
        import_weights(checkpoint, run, force=True)
    with pytest.raises(Unsupported, match="cannot take 100x100"):
        import_weights(checkpoint, tmp_path / "other", size=(100, 100))
    assert not (tmp_path / "other").exists()


def test_weights_that_were_changed_afterwards(imported: Path) -> None:
    path = imported / "weights" / "imported.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match="is not the file the run wrote"):
        open_source(imported)


def test_the_verb(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["import-weights", str(checkpoint), "--bgr", "--out", str(tmp_path / "b"), "--json"]
    app(args=arguments, standalone_mode=False)
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["channel_order"]) == ("ul-vm-unet", "BGR")
    assert document["changes"]["turned"] == "encoder1.0.weight"
