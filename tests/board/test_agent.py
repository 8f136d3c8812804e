"""agent.py as a board runs it: the protocol's order and sums, its errors, the summary for a person."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from board import bundles
from board.conftest import Copy
from edgemamba.board import sensors, summary

Packages = Callable[[str], Path]
QUICK = {"warmup_runs": 3, "warmup_s": 0.0, "min_runs": 120, "min_s": 0.0, "max_s": 30.0}


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Standard output, which holds nothing but events."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def one(found: list[dict[str, Any]], kind: str, **keys: Any) -> dict[str, Any]:
    """The only event of its kind with these values."""
    fitting = [e for e in found if e["event"] == kind and all(e[key] == value for key, value in keys.items())]
    assert len(fitting) == 1
    return fitting[0]


@pytest.mark.parametrize("name", ["onnx", "tflite", "jetson"])
def test_latency(copy: Copy, packages: Packages, cwd: Path, name: str) -> None:
    for forbidden in bundles.FORBIDDEN:
        assert not bundles.importable(forbidden, packages(name), cwd)
    bundle = copy(name)
    spawned = time.monotonic_ns()
    plan = json.dumps({**QUICK, "spawned_ns": spawned})
    done = bundles.on_board(bundle, packages(name), "agent.py", "--plan", "-", cwd=cwd, text=plan)
    wall = time.monotonic_ns() - spawned
    assert done.returncode == 0, done.stderr
    found = events(done)
    kinds = [e["event"] for e in found if e["event"] not in ("memory", "sample")]
    assert kinds == ["hello", "cold", "golden", "sensors", "sensors", "golden", "done"]
    memory = [e for e in found if e["event"] == "memory"]
    assert [e["at"] for e in memory] == ["start", "imports", "load", "first", "warm", "end"]
    for event in memory:
        assert 5_000_000 < event["rss_bytes"] <= event["peak_rss_bytes"] < 2_000_000_000
    assert memory[0]["rss_bytes"] < memory[1]["rss_bytes"]

    hello, cold = one(found, "hello"), one(found, "cold")
    assert hello["runtime"] == {"onnx": "onnxruntime", "tflite": "litert", "jetson": "onnxruntime"}[name]
    assert hello["runtime_version"] == cold["runtime_version"]
    assert hello["numpy"] == np.__version__
    assert hello["plan"]["min_runs"] == 120
    assert hello["manifest_sha256"] == hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert hello["machine"]["cores"] >= 1
    assert ("TensorRT" in cold["note"] or "tensorrt" in cold["note"]) == (name == "jetson")
    parts = cold["import_ns"] + cold["load_ns"] + cold["first_end_to_end_ns"]
    assert 0 < cold["first_run_ns"] <= cold["first_end_to_end_ns"]
    assert parts < cold["process_to_first_result_ns"] < wall
    assert cold["process_start_by"] == "starter"

    assert all(e["ok"] for e in found if e["event"] == "golden")
    samples = [e for e in found if e["event"] == "sample"]
    for phase, count in (("warmup", 3), ("run", 120)):
        batches = [e for e in samples if e["phase"] == phase]
        assert [e["i"] for e in batches] == list(range(0, count, 50))
        pairs = [pair for e in batches for pair in e["samples"]]
        assert len(pairs) == count
        assert all(0 < device <= whole < wall for device, whole in pairs)
    assert sum(pair[1] for e in samples for pair in e["samples"]) < wall
    assert one(found, "done")["runs"] == 120


def test_golden_only(copy: Copy, packages: Packages, cwd: Path) -> None:
    done = bundles.on_board(
        copy("onnx"), packages("onnx"), "agent.py", "--plan", "-", cwd=cwd, text='{"mode": "golden"}'
    )
    found = events(done)
    assert [e["event"] for e in found if e["event"] != "memory"] == ["hello", "cold", "golden", "done"]
    golden, cold = one(found, "golden"), one(found, "cold")
    assert golden["ok"] is True
    assert golden["images"] == 2
    assert golden["mean_abs_diff"] <= 1e-6
    assert golden["agreement"] == 1.0
    assert cold["process_start_by"] == "kernel"
    assert cold["process_to_first_result_ns"] > cold["import_ns"] + cold["load_ns"]
    assert one(found, "done")["runs"] == 0


def test_time_decides_when_runs_do_not(copy: Copy, packages: Packages, cwd: Path) -> None:
    (cwd / "plan.json").write_text(json.dumps({**QUICK, "min_runs": 10_000_000, "max_s": 0.05}))
    done = bundles.on_board(copy("onnx"), packages("onnx"), "agent.py", "--plan", "plan.json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert 1 <= one(events(done), "done")["runs"] < 10_000_000


@pytest.mark.parametrize(
    ("plan", "code", "words"),
    [
        ("", 2, "not JSON"),
        ("[1]", 2, "not list"),
        ('{"mode": "energy"}', 2, "mode 'energy'"),
        ('{"runs": 3}', 2, "unknown keys: runs"),
        ('{"min_runs": 0}', 2, "min_runs is 0"),
        ('{"threads": "2"}', 2, "threads is '2'"),
        ('{"threads": true}', 2, "threads is True"),
        ('{"min_s": -1}', 2, "min_s is -1"),
        ('{"max_s": Infinity}', 2, "max_s is inf"),
        ('{"runtime": "caffe"}', 2, "no runtime is named"),
        ('{"runtime": "litert"}', 5, "litert runs tflite models"),
    ],
)
def test_a_plan_that_cannot_be_done(
    copy: Copy, packages: Packages, cwd: Path, plan: str, code: int, words: str
) -> None:
    done = bundles.on_board(copy("onnx"), packages("onnx"), "agent.py", "--plan", "-", cwd=cwd, text=plan)
    assert done.returncode == code
    error = events(done)[-1]
    assert error["event"] == "error"
    assert words in error["message"]
    assert "Traceback" not in done.stderr


def test_a_missing_plan_file(copy: Copy, packages: Packages, cwd: Path) -> None:
    done = bundles.on_board(copy("onnx"), packages("onnx"), "agent.py", "--plan", "no.json", cwd=cwd)
    assert done.returncode == 3
    assert "no.json" in one(events(done), "error")["message"]


def test_nothing_is_timed_when_the_bundle_is_damaged(copy: Copy, packages: Packages, cwd: Path) -> None:
    folder = copy("onnx")
    (folder / "requirements.txt").write_text("numpy\n")
    done = bundles.on_board(folder, packages("onnx"), "agent.py", "--plan", "-", cwd=cwd, text="{}")
    assert done.returncode == 3
    assert "requirements.txt has" in one(events(done), "error")["message"]
    assert not [e for e in events(done) if e["event"] == "sample"]


def reseal(folder: Path, name: str) -> None:
    """Make the manifest agree with a changed file, as someone who meant harm would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = subprocess.run(["sha256sum", folder / name], capture_output=True, text=True, check=True)
    for entry in manifest["files"]:
        if entry["path"] == name:
            entry.update(bytes=(folder / name).stat().st_size, sha256=digest.stdout[:64])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    names = [*(entry["path"] for entry in manifest["files"]), "manifest.json"]
    sums = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, text=True, check=True)
    (folder / "SHA256SUMS").write_text(sums.stdout)


def test_a_fast_wrong_answer_is_a_failure(copy: Copy, packages: Packages, cwd: Path, tmp_path: Path) -> None:
    folder = copy("onnx")
    (folder / "model.onnx").write_bytes(bundles.export_onnx(tmp_path, flip=True).path.read_bytes())
    reseal(folder, "model.onnx")
    done = bundles.on_board(folder, packages("onnx"), "agent.py", "--plan", "-", cwd=cwd, text="{}")
    assert done.returncode == 6
    assert one(events(done), "golden")["ok"] is False
    assert "wrong results" in one(events(done), "error")["message"]
    assert not [e for e in events(done) if e["event"] == "sample"]


def test_without_packages(copy: Copy, tmp_path: Path, cwd: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = bundles.on_board(copy("onnx"), empty, "agent.py", "--plan", "-", cwd=cwd, text="{}")
    assert done.returncode == 4
    error = one(events(done), "error")
    assert "numpy" in error["message"]
    assert error["hint"] == "pip install -r requirements.txt"


def test_by_hand(copy: Copy, packages: Packages, cwd: Path) -> None:
    folder = copy("onnx")
    arguments = ("--runs", "70", "--seconds", "0", "-o", "mine.jsonl")
    done = bundles.on_board(folder, packages("onnx"), "agent.py", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    written = [json.loads(line) for line in (cwd / "mine.jsonl").read_text().splitlines()]
    assert one(written, "done")["runs"] == 70
    samples = [p for e in written if e["event"] == "sample" and e["phase"] == "run" for p in e["samples"]]
    device = np.array([pair[0] for pair in samples]) / 1e6
    median, p90 = np.percentile(device, [50, 90], method="inverted_cdf")
    line = next(line for line in done.stdout.splitlines() if "device_run" in line)
    assert f"n 70  min {device.min():.3f}  p50 {median:.3f}  p90 {p90:.3f}  p95 needs n >= 130" in line
    assert f"max {device.max():.3f} ms" in line
    for word in ("Bundle", "Golden", "Cold", "Memory"):
        assert f"\n{word}" in "\n" + done.stdout
    assert sorted(path.name for path in cwd.iterdir()) == ["mine.jsonl"]


def test_by_hand_leaves_no_half_file(copy: Copy, packages: Packages, cwd: Path) -> None:
    folder = copy("onnx")
    (folder / "LICENSE").unlink()
    done = bundles.on_board(folder, packages("onnx"), "agent.py", "--seconds", "0", cwd=cwd)
    assert done.returncode == 3
    assert "LICENSE is missing" in done.stderr
    assert list(cwd.iterdir()) == []
    done = bundles.on_board(folder, packages("onnx"), "agent.py", "-o", "no/where.jsonl", cwd=cwd)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("share", [50, 90, 95, 99])
@pytest.mark.parametrize("count", [10, 11, 63, 64, 129, 130, 661, 662, 1001])
def test_percentiles_need_samples(share: int, count: int) -> None:
    values = [int(v) for v in np.random.default_rng(count).integers(1, 10**9, count)]
    needed = {50: 11, 90: 64, 95: 130, 99: 662}[share]
    expected = None if count < needed else int(np.percentile(values, share, method="inverted_cdf"))
    assert summary.percentile(values, share) == expected


def test_memory_peak_can_be_reset() -> None:
    block = np.ones(20_000_000)
    with_block = sensors.memory()
    del block
    assert with_block["peak_rss_bytes"] >= 160_000_000
    if sensors.reset_peak():
        assert sensors.memory()["peak_rss_bytes"] < with_block["peak_rss_bytes"]
    assert 0 < sensors.process_age_ns() < 86_400 * 10**9
