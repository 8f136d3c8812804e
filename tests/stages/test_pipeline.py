"""Whole exports: Bundles that pass their own checks, a cache that is right, plans that write nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from edgemamba import bundle
from edgemamba.board import runner
from edgemamba.console import Console
from edgemamba.errors import InputError, Unsupported, UsageError, VerificationError
from edgemamba.presets import find_target
from edgemamba.sources import TrainedSource, open_source
from edgemamba.stages import fp16
from edgemamba.stages.artifact import Artifact, expect, open_artifact
from edgemamba.stages.cache import cache_root
from edgemamba.stages.fp16 import write_fp16
from edgemamba.stages.pipeline import Options, Plan, cached_steps, plan, run
from edgemamba.tasks import Bar
from edgemamba.tasks.segmentation import Segmentation

# ONNX Runtime's quantizer is the faster one; test_int8.py covers both.
OPTIONS = Options(quantizer="ort", calibration=16, verify_images=16)


class Lines(Console):
    """Keeps what would be shown."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.shown: list[str] = []
        self.warned: list[str] = []

    def line(self, text: str) -> None:
        self.shown.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


def make(source: TrainedSource, target: str, precision: Any, out: Path, **changes: Any) -> Plan:
    return plan(source, find_target(target), precision, dataclasses.replace(OPTIONS, out=out, **changes))


def export(source: TrainedSource, target: str, precision: Any, out: Path, **changes: Any) -> list[str]:
    console = Lines()
    assert run(make(source, target, precision, out, **changes), console) == out
    return console.shown


def golden(folder: Path) -> dict[str, Any]:
    manifest = runner.load_manifest(folder)
    return runner.check_golden(folder, manifest, runner.open_session(folder, manifest, "onnxruntime"))


def test_fp32_makes_a_bundle_that_checks(source: TrainedSource, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    shown = export(source, "cpu", "fp32", out)
    manifest = bundle.check(out)
    assert golden(out)["ok"]
    assert [record.name for record in manifest.stages] == ["export", "verify"]
    assert [line[:5] for line in shown[::2]] == ["[1/3]", "[2/3]", "[3/3]"]
    assert all(line.endswith(" s") for line in shown[1::2])
    assert manifest.verification["images"] == 16 and manifest.verification["mask_agreement"] >= 0.99999
    assert manifest.quantization is None
    assert manifest.source["weights_sha256"] == source.weights_sha256
    assert manifest.source["run"]["epochs_done"] == 4
    assert manifest.data is not None and manifest.data.fingerprint == source.data.fingerprint
    assert str(tmp_path) not in (out / "manifest.json").read_text()


def pads(folder: Path) -> list[int]:
    graph = onnx.load(folder / "model.onnx").graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return [int(n) for node in graph.node if node.op_type == "Pad" for n in constants[node.input[1]]]


@pytest.mark.parametrize(("precision", "step"), [("fp16", "compute in fp16"), ("int8", "quantize to int8 by ort")])
def test_lower_precision_is_verified_before_and_after(
    precision: str, step: str, source: TrainedSource, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    shown = export(source, "jetson", precision, out)
    manifest = bundle.check(out)
    assert golden(out)["ok"]
    assert [record.name for record in manifest.stages] == ["export", "verify", "quantize", "verify"]
    assert step in shown[4] and shown[8].startswith("[5/5]")
    assert manifest.precision == precision and manifest.runtime == "tensorrt"
    assert min(pads(out)) >= 0
    assert manifest.quantization is not None and manifest.quantization["scheme"] == manifest.stages[2].title
    if precision == "int8":
        calibration = manifest.quantization["calibration"]
        assert calibration["images"] == 16 and len(calibration["sha256"]) == 64


def test_tflite_takes_the_same_way(source: TrainedSource, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    shown = export(source, "raspberry-pi", "int8", out)
    manifest = bundle.check(out)
    assert (manifest.target, manifest.format, manifest.runtime) == ("raspberry-pi-5", "tflite", "litert")
    assert "quantize to int8 by ai-edge-quantizer" in shown[4]
    assert manifest.quantization is not None and manifest.quantization["calibration"]["images"] == 16
    assert manifest.verification["mask_dice"] >= 0.98


def test_targets_share_what_is_equal_and_a_hit_says_so(source: TrainedSource, tmp_path: Path) -> None:
    first = export(source, "cpu", "fp32", tmp_path / "a")
    second = export(source, "raspberry-pi", "fp32", tmp_path / "b", format="onnx")
    assert "cached" not in " ".join(first)
    assert ["cached" in line for line in second[1::2]] == [True, True, False]
    assert (tmp_path / "a" / "model.onnx").read_bytes() == (tmp_path / "b" / "model.onnx").read_bytes()
    assert [record.cached for record in bundle.check(tmp_path / "b").stages] == [True, True]


def test_what_changes_is_made_again(source: TrainedSource, run_folder: Path, tmp_path: Path) -> None:
    export(source, "cpu", "int8", tmp_path / "a")
    assert cached_steps(make(source, "cpu", "int8", tmp_path / "b")) == (True, True, True, True, False)
    changes: dict[str, tuple[bool | None, ...]] = {
        "calibration": (True, True, False, None, False),
        "seed": (True, True, False, None, False),
        "quantizer": (True, True, False, None, False),
        "verify_images": (True, False, None, None, False),
        "cache": (False, None, None, None, False),
    }
    values: dict[str, Any] = {"calibration": 17, "seed": 1, "quantizer": "nncf", "verify_images": 17, "cache": False}
    for name, expected in changes.items():
        assert cached_steps(make(source, "cpu", "int8", tmp_path / "b", **{name: values[name]})) == expected, name
    assert cached_steps(make(source, "cpu", "fp16", tmp_path / "b")) == (True, True, False, None, False)
    other = shutil.copytree(run_folder, tmp_path / "other")
    shutil.copy(other / "weights" / "last.safetensors", other / "weights" / "best.safetensors")
    record = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**record, "weights": {}}))
    assert cached_steps(make(open_source(other), "cpu", "int8", tmp_path / "b"))[0] is False


def test_plan_writes_nothing(source: TrainedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned = plan(source, find_target("jetson"), "int8", OPTIONS)
    cached = cached_steps(planned)
    assert cached == (False, None, None, None, False)
    document = planned.document(cached)
    assert json.loads(json.dumps(document)) == document
    assert [step["name"] for step in document["steps"]] == ["export", "verify", "quantize", "verify", "package"]
    assert document["out"] == "bundles/ul-vm-unet-jetson-orin-nano-int8"
    assert planned.lines(cached)[1].startswith("[1/5] export 64x64 to ONNX fp32, opset 20 (to do)")
    assert not list(tmp_path.iterdir()) and not cache_root().exists()


def test_bundles_are_never_replaced_unasked(
    source: TrainedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundles" / "ul-vm-unet-cpu-fp32").mkdir(parents=True)
    assert plan(source, find_target("cpu"), "fp32", OPTIONS).out == Path("bundles/ul-vm-unet-cpu-fp32-2")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("x")
    with pytest.raises(InputError, match="exists"):
        export(source, "cpu", "fp32", taken)
    with pytest.raises(InputError, match=r"no manifest\.json"):
        export(source, "cpu", "fp32", taken, force=True)
    assert [path.name for path in taken.iterdir()] == ["mine"]
    (taken / "manifest.json").write_text("{}")
    export(source, "cpu", "fp32", taken, force=True)
    assert not (taken / "mine").exists() and (taken / "manifest.json").is_file()


def test_existing_folder_is_refused_before_any_work(source: TrainedSource, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("x")
    with pytest.raises(InputError, match="exists"):
        make(source, "cpu", "fp32", tmp_path / "taken")


def test_failed_verification_packages_nothing(
    source: TrainedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmentation, "bars", {"fp32": Bar(0.0, 1.0)})
    with pytest.raises(VerificationError, match="does not match fp32 PyTorch"):
        export(source, "cpu", "fp32", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    # The export itself is sound and stays cached; the verdict is not.
    assert cached_steps(make(source, "cpu", "fp32", tmp_path / "bundle")) == (True, False, False)


def test_missing_training_data_is_a_warning_for_fp32_and_an_error_for_int8(
    source: TrainedSource, tmp_path: Path
) -> None:
    data = source.data.model_copy(update={"name": "lgg", "root": str(tmp_path / "gone"), "options": {}})
    elsewhere = dataclasses.replace(source, run=source.run.model_copy(update={"data": data}))
    console = Lines()
    run(make(elsewhere, "cpu", "fp32", tmp_path / "bundle"), console)
    assert len(console.warned) == 1 and console.warned[0].startswith("verified on phantoms, because")
    with pytest.raises(InputError, match="is gone"):
        run(make(elsewhere, "cpu", "int8", tmp_path / "int8"), Lines())
    assert not (tmp_path / "int8").exists()


def test_few_calibration_images_are_said(source: TrainedSource, tmp_path: Path) -> None:
    console = Lines()
    run(make(source, "cpu", "int8", tmp_path / "bundle", calibration=8), console)
    assert console.warned == ["calibrated on 8 images; 16 or more are better"]


def test_artifact_that_did_not_shrink_is_said(
    source: TrainedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pad(path: Path, out: Path) -> dict[str, Any]:
        facts = write_fp16(path, out)
        return {**facts, "bytes": 10**7}

    monkeypatch.setattr(fp16, "write_fp16", pad)
    console = Lines()
    run(make(source, "cpu", "fp16", tmp_path / "bundle"), console)
    assert len(console.warned) == 1 and console.warned[0].startswith("the fp16 artifact has 10,000,000 bytes, fp32 has")


@pytest.mark.parametrize(
    ("target", "precision", "changes", "error", "message"),
    [
        ("jetson", "fp32", {"format": "tflite"}, Unsupported, "does not take tflite"),
        ("cpu", "fp8", {}, UsageError, "no precision is named 'fp8'"),
        ("cpu", "int8", {"quantizer": "ortt"}, UsageError, "no quantizer is named 'ortt'"),
        ("cpu", "int8", {"calibration": 0}, UsageError, "--calibration is 0"),
        ("cpu", "fp32", {"verify_images": 0}, UsageError, "--verify-images is 0"),
    ],
)
def test_impossible_plans(
    target: str,
    precision: str,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    source: TrainedSource,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        make(source, target, precision, tmp_path / "bundle", **changes)


def test_stage_refuses_an_artifact_it_cannot_take(fp32: Artifact, tmp_path: Path) -> None:
    expect(fp32, "quantize", "onnx", "fp32")
    for wrong in (dataclasses.replace(fp32, precision="fp16"), dataclasses.replace(fp32, format="tflite")):
        with pytest.raises(UsageError, match="quantize takes onnx fp32, not"):
            expect(wrong, "quantize", "onnx", "fp32")
    with pytest.raises(InputError, match="does not exist"):
        open_artifact(tmp_path / "missing.onnx", "onnx", "fp32", {})
