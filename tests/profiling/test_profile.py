"""The whole measurement on a real Bundle, and what refuses to be measured."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgemamba.bundle import check
from edgemamba.console import Console
from edgemamba.errors import DeviceError, InputError, Unsupported, UsageError, VerificationError
from edgemamba.evaluation.evaluate import evaluate
from edgemamba.evaluation.predictors import bundle_predictor
from edgemamba.profiling import ProfileOptions, profile, report_folder
from edgemamba.profiling.quality import NotMeasured, Retention
from edgemamba.profiling.records import ProfileReport
from edgemamba.records import load_record

QUIET = Console(quiet=True)


def quick(**changes) -> ProfileOptions:
    return ProfileOptions(**{"quick": True, "min_runs": 12, "warmup_runs": 2, **changes})


@pytest.fixture(scope="module")
def measured(made, tmp_path_factory) -> tuple[ProfileReport, Path]:
    out = tmp_path_factory.mktemp("report")
    return profile(made.bundle, quick(run=made.run, out=out, processes=1), QUIET), out


def test_report_json_is_the_report(measured):
    report, out = measured
    assert load_record(out / "report.json", ProfileReport) == report
    assert json.dumps(report.model_dump(mode="json"), allow_nan=False)
    assert "<svg" in (out / "report.html").read_text()


@pytest.mark.usefixtures("measured")
def test_the_bundle_is_left_as_it_was(made):
    check(made.bundle)


def test_samples_are_kept_and_make_the_statistics(measured):
    report, _ = measured
    (process,) = report.processes
    timed = np.array(process.device_run_ns[process.warmup_runs :]) / 1e6
    assert process.warmup_runs >= 2
    assert len(timed) == report.device_run.n >= 12
    assert report.device_run.min_ms == pytest.approx(timed.min())
    assert report.device_run.p50_ms.value == pytest.approx(np.median(timed))
    pairs = zip(process.device_run_ns, process.end_to_end_ns, strict=True)
    assert all(whole >= device for device, whole in pairs)


def test_cold_start_and_memory_are_plausible(measured):
    report, _ = measured
    (process,) = report.processes
    parts = process.import_ns + process.load_ns + process.first_run_ns
    assert 0 < parts <= process.process_to_first_result_ns
    found = report.memory
    growth, peak, idle = found.growth_mb.value, found.peak_mb.value, found.idle_mb.value
    assert peak == pytest.approx(growth + idle)
    assert idle > 10
    assert list(report.memory.steps_mb) == ["start", "imports", "load", "first", "warm", "end"]


def test_golden_vectors_are_checked_before_and_after(measured):
    report, _ = measured
    checks = report.processes[0].golden
    assert [(check.at, check.ok) for check in checks] == [("before", True), ("after", True)]


def test_two_quick_processes_are_never_valid(measured):
    report, _ = measured
    assert not report.valid
    assert "few-processes" in [flag.name for flag in report.flags]


def test_retention_is_what_evaluation_says(measured, made):
    report, _ = measured
    kept = report.retention
    assert isinstance(kept, Retention)
    assert kept.images == kept.of_images == 8
    candidate = bundle_predictor(made.bundle)
    own = evaluate(candidate, made.dataset, _test(made), (64, 64), QUIET, split="patient")
    assert kept.dice_artifact.value == pytest.approx(own.value())
    assert kept.retention_pct.value == pytest.approx(100, abs=0.01)
    assert kept.mask_agreement_pct > 99.99
    assert kept.false_alarms_artifact.of == sum(one.true == 0 for one in own.slices)
    assert sorted(score.patient for score in kept.scores) == ["1", "2"]
    reasons = {reason for case in kept.cases for reason in case.why}
    assert {"worst Dice", "median Dice", "best Dice"} <= reasons


def test_nothing_in_the_report_names_the_person_or_place(measured, made):
    _, out = measured
    text = (out / "report.json").read_text()
    ids = {made.dataset.samples[index].patient for index in _test(made)}
    for word in (socket.gethostname(), str(made.bundle.parent), str(Path.home()), *ids):
        assert not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text), word


def test_the_default_place_is_beside_the_bundle_and_never_inside(made):
    assert report_folder(made.bundle, quick()) == made.bundle.with_name("bundle-report")
    with pytest.raises(UsageError):
        report_folder(made.bundle, quick(out=made.bundle / "report"))


def test_a_changed_file_is_refused(made, tmp_path):
    bundle = shutil.copytree(made.bundle, tmp_path / "bundle")
    with (bundle / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(InputError, match=r"model\.onnx"):
        profile(bundle, quick(out=tmp_path / "out"), QUIET)
    assert not (tmp_path / "out").exists()


def forge(bundle: Path, name: str, content: bytes) -> None:
    """Change a file and make the sums agree again, as a broken converter would leave it."""
    from edgemamba.bundle.check import sums_text
    from edgemamba.files import sha256_file
    from edgemamba.records import FileEntry, Manifest, save_record

    (bundle / name).write_bytes(content)
    manifest = load_record(bundle / "manifest.json", Manifest)
    entry = FileEntry(path=name, bytes=len(content), sha256=sha256_file(bundle / name))
    files = [entry if one.path == name else one for one in manifest.files]
    save_record(bundle / "manifest.json", manifest.model_copy(update={"files": files}))
    (bundle / "SHA256SUMS").write_text(sums_text(bundle, files))


def test_wrong_results_stop_the_measurement(made, tmp_path):
    bundle = shutil.copytree(made.bundle, tmp_path / "bundle")
    with np.load(bundle / "golden.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    arrays["probability"] = 1 - arrays["probability"]
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    forge(bundle, "golden.npz", stream.getvalue())
    with pytest.raises(VerificationError, match="golden"):
        profile(bundle, quick(out=tmp_path / "out"), QUIET)
    assert not (tmp_path / "out").exists()


def test_a_model_that_does_not_load_gives_the_agents_own_error(made, tmp_path):
    bundle = shutil.copytree(made.bundle, tmp_path / "bundle")
    forge(bundle, "model.onnx", b"not a graph")
    with pytest.raises(Unsupported, match=r"agent\.py.*model\.onnx"):
        profile(bundle, quick(out=tmp_path / "out"), QUIET)


def test_a_board_is_not_reached_from_here(made):
    with pytest.raises(UsageError) as caught:
        profile(made.bundle, quick(device="raspberry-pi-5"), QUIET)
    assert "agent.py" in caught.value.hint
    assert "--samples agent.jsonl" in caught.value.hint
    with pytest.raises(UsageError, match="no device is named"):
        profile(made.bundle, quick(device="toaster"), QUIET)


def test_samples_of_a_board_are_imported(made, tmp_path):
    """The agent as a person starts it; its file then stands for a board's."""
    record = tmp_path / "agent.jsonl"
    command = [sys.executable, "-B", "agent.py", "--runs", "15", "--seconds", "0.1", "-o", str(record)]
    subprocess.run(command, cwd=made.bundle, check=True, capture_output=True)
    options = ProfileOptions(device="raspberry-pi-5", samples=record, out=tmp_path / "out")
    report = profile(made.bundle, options, QUIET)
    assert report.device.name == "raspberry-pi-5"
    assert report.device_run.n >= 15
    assert report.protocol.min_runs == 15
    assert isinstance(report.retention, NotMeasured)
    assert "--samples agent.jsonl" in report.command
    with pytest.raises(UsageError, match="no device describes"):
        profile(made.bundle, ProfileOptions(samples=record, out=tmp_path / "other"), QUIET)
    other = shutil.copytree(made.bundle, tmp_path / "bundle")
    readme = (other / "README.md").read_bytes()
    forge(other, "README.md", readme + b"exported again")
    with pytest.raises(InputError, match=r"measured with another \S+ \(manifest SHA-256 \w{12}, here \w{12}\)"):
        profile(other, options, QUIET)


def test_a_record_that_is_none_is_refused(made, tmp_path):
    record = tmp_path / "agent.jsonl"
    record.write_text('{"event": "hello", "bundle": "unet-cpu-int8"}\n')
    with pytest.raises(DeviceError, match="no cold event"):
        profile(made.bundle, ProfileOptions(samples=record, device="raspberry-pi-5"), QUIET)
    record.write_text("hello\n")
    with pytest.raises(InputError, match=r"not a record of agent\.py"):
        profile(made.bundle, ProfileOptions(samples=record, device="raspberry-pi-5"), QUIET)


def _test(made) -> list[int]:
    from edgemamba.data import split_dataset

    return list(split_dataset(made.dataset, "patient").test)
