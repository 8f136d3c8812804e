"""What inspect says about a model, a run, packaged weights and a Bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgemamba.console import Console
from edgemamba.errors import InputError, Unsupported, UsageError
from edgemamba.presets import find_target
from edgemamba.sources import TrainedSource
from edgemamba.stages.inspect import inspect_subject
from edgemamba.stages.pipeline import Options, plan, run


def test_model() -> None:
    found = inspect_subject("ul-vm-unet")
    assert json.loads(json.dumps(found)) == found
    assert (found["kind"], found["parameters"], found["size"]) == ("model", 49_457, [256, 256])
    assert found["macs"] == found["macs_conv_matmul"] + found["macs_scan"]
    first = {"name": "encoder4.0.mamba", "length": 1024, "d_inner": 12, "d_state": 16, "dt_rank": 1, "groups": 4}
    assert found["scans"][0] == first
    assert [scan["length"] for scan in found["scans"]] == [1024, 256, 64, 64, 64, 256]


def test_network_without_state_space() -> None:
    found = inspect_subject("unet", (64, 96))
    assert found["scans"] == [] and found["macs_scan"] == 0 and found["size"] == [64, 96]


def test_run(run_folder: Path, source: TrainedSource) -> None:
    found = inspect_subject(str(run_folder))
    assert json.loads(json.dumps(found)) == found
    assert (found["kind"], found["name"], found["size"]) == ("run", "small", [64, 64])
    assert found["weights_sha256"] == source.weights_sha256
    assert {"run.json", "weights/best.safetensors"} <= {entry["path"] for entry in found["files"]}
    assert found["provenance"]["epochs_done"] == 4


def test_bundle(source: TrainedSource, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    run(plan(source, find_target("cpu"), "fp32", Options(verify_images=4, out=out)), Console(quiet=True))
    found = inspect_subject(str(out))
    assert json.loads(json.dumps(found)) == found
    assert (found["kind"], found["target"], found["precision"], found["parameters"]) == (
        "bundle",
        "cpu",
        "fp32",
        49_457,
    )
    assert found["provenance"]["weights_sha256"] == source.weights_sha256
    listed = {entry["path"]: entry["bytes"] for entry in found["files"]}
    assert listed["model.onnx"] == (out / "model.onnx").stat().st_size
    assert [stage["name"] for stage in found["stages"]] == ["export", "verify"]
    (out / "model.onnx").write_bytes(b"tampered")
    with pytest.raises(InputError, match=r"model\.onnx"):
        inspect_subject(str(out))


def test_what_cannot_be_inspected(tmp_path: Path, run_folder: Path) -> None:
    with pytest.raises(UsageError, match="is no model, packaged weights, run or Bundle") as caught:
        inspect_subject("ul-vm-net")
    assert "ul-vm-unet" in caught.value.hint
    with pytest.raises(InputError, match="neither a run nor a Bundle"):
        inspect_subject(str(tmp_path))
    with pytest.raises(Unsupported, match="cannot take 100x100"):
        inspect_subject("ul-vm-unet", (100, 100))
    broken = Path(shutil.copytree(run_folder, tmp_path / "broken"))
    (broken / "run.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        inspect_subject(str(broken))
