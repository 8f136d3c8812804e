"""Interrupted runs go on exactly."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgemamba.errors import InputError
from edgemamba.records import RunRecord, load_record
from edgemamba.train import loop as loop_module
from edgemamba.train import resume_config, train
from edgemamba.train import run as run_module
from train.runs import QUIET, assert_same_state, tiny

EPOCHS = 4

PROGRAM = """
import sys
from pathlib import Path
from edgemamba.console import Console
from edgemamba.train import train
from train.runs import tiny
try:
    train(tiny(Path(sys.argv[1]), epochs=int(sys.argv[2])), Console())
except KeyboardInterrupt as interrupt:
    print(interrupt)
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    train(tiny(out, epochs=EPOCHS), QUIET)
    return out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_then_resume_equals_an_uninterrupted_run(
    uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(out), str(EPOCHS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={
            "PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parents[1]}",
            "OMP_NUM_THREADS": "1",
        },
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 1/"):
            break
    process.send_signal(number)
    message, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"go on with: edgemamba train --resume --out {out}" in message
    record = load_record(out / "run.json", RunRecord)
    assert record.state == "interrupted"
    assert 1 <= record.epochs_done < EPOCHS
    assert f"{record.epochs_done} of {EPOCHS} epochs are kept" in message
    done = train(resume_config(out), QUIET)
    assert (done.state, done.epochs_done) == ("finished", EPOCHS)
    assert_same_state(out, uninterrupted)
    for name in ("best", "last"):
        mine, whole = ((folder / "weights" / f"{name}.safetensors") for folder in (out, uninterrupted))
        assert mine.stat().st_size == whole.stat().st_size


def test_a_kill_between_state_and_results_is_mended(uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = run_module.Run(tiny(out, epochs=EPOCHS), QUIET)
    original = run.folder.save_results

    def killed(*arguments: object) -> None:
        if len(run.rows) == 2:
            raise SystemExit
        original(*arguments)  # type: ignore[arg-type]

    run.folder.save_results = killed  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        run.epochs()
    assert load_record(out / "run.json", RunRecord).epochs_done == 1
    train(resume_config(out), QUIET)
    assert_same_state(out, uninterrupted)
    mine, whole = ((folder / "metrics.csv").read_text().splitlines() for folder in (out, uninterrupted))
    assert [line.split(",")[:9] for line in mine] == [line.split(",")[:9] for line in whole]


def test_epochs_not_written_yet_are_written_at_an_interruption(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run on CUDA does, where writing every epoch would keep the GPU waiting."""
    out = tmp_path / "out"
    run = run_module.Run(tiny(out, epochs=EPOCHS), QUIET)
    run.writes_every_epoch, run.due = False, float("inf")
    check = run._check_losses

    def interrupted(epoch: int, begin: int, end: int) -> float:
        found = check(epoch, begin, end)
        if epoch == EPOCHS - 1:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(run, "_check_losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.epochs()
    assert load_record(out / "run.json", RunRecord).epochs_done == 0
    loop_module._leave(run)
    record = load_record(out / "run.json", RunRecord)
    assert (record.state, record.epochs_done) == ("interrupted", EPOCHS - 1)
    train(resume_config(out), QUIET)
    assert_same_state(out, uninterrupted)


def test_a_run_killed_in_its_first_epoch_starts_again(uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_module.Run(tiny(out, epochs=EPOCHS), QUIET)
    assert load_record(out / "run.json", RunRecord).state == "running"
    train(resume_config(out), QUIET)
    assert_same_state(out, uninterrupted)


def test_a_finished_run_is_left_alone(uninterrupted: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}
    record = train(resume_config(uninterrupted), QUIET)
    assert record.state == "finished"
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")} == before


def test_the_same_seed_gives_the_same_run_and_another_does_not(uninterrupted: Path, tmp_path: Path) -> None:
    train(tiny(tmp_path / "same", epochs=EPOCHS), QUIET)
    assert_same_state(tmp_path / "same", uninterrupted)
    train(tiny(tmp_path / "other", epochs=EPOCHS, seed=1), QUIET)
    with pytest.raises(AssertionError):
        assert_same_state(tmp_path / "other", uninterrupted)


def test_other_settings_are_listed(tmp_path: Path) -> None:
    run_module.Run(tiny(tmp_path / "out"), QUIET)
    with pytest.raises(InputError, match=r"epochs: 2 in the run, 3 now; seed: 0 in the run, 5 now"):
        train(tiny(tmp_path / "out", epochs=3, seed=5, resume=True), QUIET)
    other = {"patients": 9, "slices": 6, "size": 32}
    with pytest.raises(InputError, match="data options"):
        train(tiny(tmp_path / "out", data_options=other, resume=True), QUIET)


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    run_module.Run(tiny(tmp_path / "out"), QUIET)
    state = tmp_path / "out" / "state" / "last.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InputError, match="is damaged"):
        train(resume_config(tmp_path / "out"), QUIET)
    state.unlink()
    with pytest.raises(InputError, match="does not exist"):
        train(resume_config(tmp_path / "out"), QUIET)


def test_nothing_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        train(tiny(tmp_path / "out", resume=True), QUIET)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no run in"):
        resume_config()
    for name in ("a", "b"):
        run_module.Run(tiny(Path("runs") / name), QUIET)
        time.sleep(0.01)
    assert resume_config().out == Path("runs") / "b"
