"""The committed plans: every job is a command line the program takes, and each needs only jobs that are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from edgemamba.bench.sweep import Devices, Job, jobs, run
from edgemamba.cli.main import app
from edgemamba.presets import read_toml

ROOT = Path(__file__).parent.parent
DATA = ("--data", "lgg", "--data-root", "lgg")


def planned(path: Path, runs: Path) -> list[Job]:
    return list(jobs(read_toml(path), runs, runs / "records", DATA))


@pytest.mark.parametrize("plan", sorted((ROOT / "profiles" / "plans").glob("*.toml")), ids=lambda path: path.stem)
def test_commands_are_taken(plan: Path, tmp_path: Path) -> None:
    found = planned(plan, tmp_path)
    names = {job.name for job in found}
    assert len(names) == len(found)
    group = typer.main.get_command(app)
    for job in found:
        assert set(job.needs) <= names
        verb = group.get_command(None, job.arguments[0])  # type: ignore[attr-defined, arg-type]
        verb.make_context(job.arguments[0], list(job.arguments[1:]))
        assert not job.done(tmp_path)


def test_students_learn_from_their_own_fold(tmp_path: Path) -> None:
    found = {job.name: job for job in planned(ROOT / "profiles" / "plans" / "patients.toml", tmp_path)}
    student = found["edge-unet-distilled-fold3-s0"]
    assert student.needs == ("unet-refit-fold3-s0",)
    assert "fold:3" in student.arguments
    teachers = [b for a, b in zip(student.arguments, student.arguments[1:], strict=False) if a == "--teacher"]
    assert teachers == [*(str(tmp_path / name) for name in student.needs), "lgg-edge-fold3"]


def test_interrupted_runs_go_on_and_finished_ones_stay(tmp_path: Path) -> None:
    plan, begun = ROOT / "profiles" / "plans" / "systems.toml", "resnet18-seg-image-s0"
    for name, state in ((begun, "interrupted"), ("segformer-image-s0", "finished")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"state": state}))
    found = {job.name: job for job in planned(plan, tmp_path)}
    assert found[begun].arguments == ("train", "--resume", "--out", str(tmp_path / begun))
    assert not found[begun].done(tmp_path)
    assert found["segformer-image-s0"].done(tmp_path)


def test_jobs_run_once_in_order_and_leave_their_records(tmp_path: Path) -> None:
    """Real processes: what fails is counted, what needs it is not started."""
    record = tmp_path / "listed.json"
    first = Job("first", ("list", "devices", "--json"), (), tmp_path / "first.json")
    second = Job("second", ("inspect", "ul-vm-unet", "--json"), ("first",), record)
    wrong = Job("wrong", ("inspect", "no-such-net", "--json"), (), tmp_path / "wrong.json")
    never = Job("never", ("list", "models", "--json"), ("wrong",), tmp_path / "never.json")
    left = run([never, second, wrong, first], Devices(["0"], 2, tmp_path), 120)
    assert left == 2  # one failed, one waits for it
    assert json.loads(record.read_text())["parameters"] == 49_457
    assert not (tmp_path / "wrong.json").exists() and not (tmp_path / "never.json").exists()
    written = record.stat().st_mtime_ns
    assert run([first, second], Devices(["0"], 2, tmp_path), 120) == 0
    assert record.stat().st_mtime_ns == written
