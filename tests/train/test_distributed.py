"""Two processes over gloo: the same training as one, one set of files, and one end of all of them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgemamba.errors import DeviceError, InputError, UsageError
from edgemamba.records import RunRecord, load_record
from edgemamba.train import TrainConfig, resume_config, train
from edgemamba.train.distributed import World, lost
from edgemamba.train.launch import launch, place
from train import shared_step
from train.runs import QUIET, tiny

TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{TESTS.parent}{os.pathsep}{TESTS}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def start(program: str, folder: Path) -> int:
    return launch([sys.executable, "-m", "train.shared_step", program, str(folder)], 2)


def table(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").open()))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by two processes."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        environment.__wrapped__(patch)  # type: ignore[attr-defined]
        assert start("run", folder) == 0
    return folder / "out"


def test_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    assert start("gradients", tmp_path) == 0
    one, other = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    alone = shared_step.every_loss(World())
    assert one.keys() == other.keys() == alone.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])], "the processes drift apart"
    for name, expected in alone.items():
        # Of the whole gradient: single numbers of it are small differences of large sums.
        case = name.rsplit(" ", 1)[0]
        scale = float(alone[f"{case} norms"][1]) / 10 if name.split(" ")[2].endswith(("weight", "bias")) else 1.0
        assert float((one[name] - expected).abs().max()) < 1e-5 * scale, name
    # Batch norm sees its own share alone; what is kept of it is the same everywhere.
    for kind in ("moved", "unet"):
        one, other = (load_file(tmp_path / f"{kind}-{rank}.safetensors") for rank in (0, 1))
        assert not [name for name in one if not torch.equal(one[name], other[name])]
    mean = "average/encoder1.1.running_mean"
    whole = shared_step.steps(World(), "bce", 0.0, "unet")
    torch.testing.assert_close(one[mean], whole[mean], rtol=1e-4, atol=1e-5)


def test_a_run_by_two_is_as_good_as_by_one_and_is_written_once(shared: Path, tmp_path: Path) -> None:
    alone = train(tiny(tmp_path / "out", **shared_step.LONGER), QUIET)
    record = load_record(shared / "run.json", RunRecord)
    assert (record.state, record.epochs_done, record.batch) == ("finished", 10, 4)
    assert (record.environment["devices"], record.environment["backend"]) == (2, "gloo")
    assert (alone.environment["devices"], alone.environment["backend"]) == (1, None)
    rows, others = table(shared), table(tmp_path / "out")
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    assert [row["lr"] for row in rows] == [row["lr"] for row in others]
    # Two seeds of one process differ by 0.04 to 0.07 here.
    for column, noise in (("val_loss", 0.12), ("train_loss", 0.12), ("val_dice_pooled", 0.1), ("train_dice", 0.12)):
        assert abs(float(rows[-1][column]) - float(others[-1][column])) < noise, column
    assert min(float(rows[-1]["val_dice_pooled"]), float(others[-1]["val_dice_pooled"])) > 0.15
    names = {path.relative_to(shared).parts[0] for path in shared.rglob("*")}
    assert names == {"run.json", "metrics.csv", "curves.png", "samples", "weights", "state"}
    assert not list(shared.rglob(".*"))


def test_validation_does_not_depend_on_how_many_share_it(shared: Path) -> None:
    """The kept weights, judged by one process, have the recorded Dice."""
    from edgemamba.data import load_arrays, open_ref
    from edgemamba.models import build
    from edgemamba.models.weights import load_weights
    from edgemamba.train.recipes import resolve
    from edgemamba.train.segmentation import SegmentationTask
    from edgemamba.train.validation import validate

    record = load_record(shared / "run.json", RunRecord)
    dataset, split = open_ref(record.data)
    task = SegmentationTask()
    model = build("ul-vm-unet")
    load_weights(shared / "weights" / "last.safetensors", model)
    model = model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    packed = task.pack(load_arrays(dataset, split.val, (64, 64), QUIET))
    recipe = resolve("default", model.info, batch=4, steps=100)
    seen = validate(task, model, packed, recipe, batch=8, layout=torch.channels_last, world=World())
    row = table(shared)[-1]
    assert float(row["val_loss"]) == pytest.approx(seen.loss, rel=1e-5)
    assert float(row["val_dice_pooled"]) == pytest.approx(seen.scores["val_dice_pooled"], abs=1e-6)


def test_a_signal_ends_all_with_one_message_and_the_run_goes_on_with_another_number(tmp_path: Path) -> None:
    command = "import sys; from edgemamba.train.launch import launch; sys.exit(launch(sys.argv[1:], 2))"
    inner = [sys.executable, "-m", "train.shared_step", "goes_on", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", command, *inner], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("epoch 2/"):
            process.send_signal(signal.SIGTERM)
            break
    lines += process.stderr.readlines()
    assert process.wait(30) == 130
    said = [line for line in lines if line.startswith("error:")]
    assert len(said) == 1 and "epochs are kept; go on with: edgemamba train --resume --out" in said[0], lines
    assert not [line for line in lines if "Traceback" in line or "warning" in line], lines
    out = tmp_path / "out"
    record = load_record(out / "run.json", RunRecord)
    assert (record.state, record.epochs_done) == ("interrupted", len(table(out))) and record.epochs_done >= 2
    with pytest.raises(UsageError, match="2 devices take 2 processes, and this is one"):
        train(resume_config(out), QUIET)
    document = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**document, "epochs": record.epochs_done + 1}))
    assert resume_config(out).devices == 2
    with pytest.raises(InputError, match="another recipe"):
        train(resume_config(out, devices=1), QUIET)


def test_two_started_by_torchrun_go_on_where_one_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgemamba.train import run as run_module

    out = tmp_path / "out"
    epoch = run_module.Run._epoch

    def stops(self: run_module.Run, number: int, bar: object) -> object:
        if number == 1:
            raise InputError("stopped")
        return epoch(self, number, bar)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(run_module.Run, "_epoch", stops)
        with pytest.raises(InputError, match="stopped"):
            train(tiny(out), QUIET)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "edgemamba",
    ]
    done = subprocess.run([*command, "train", "--resume", "--out", str(out), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["state"], document["epochs_done"], document["environment"]["devices"]) == ("finished", 2, 2)
    assert "other devices" in done.stderr and done.stderr.count("warning: not bit-identical") == 1


def test_a_batch_that_is_no_number_is_kept_by_the_process_that_had_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert start("breaks", tmp_path) == 3
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and "loss is nan in epoch 2, step 2" in said[0]
    out = tmp_path / "out"
    about = json.loads((out / "failed" / "batch.json").read_text())
    assert about["process"] == 1
    assert (about["epoch"], about["step"]) == (2, 2)
    assert [entry["input_not_finite"] > 0 for entry in about["slices"]] == [True, False, False, False]
    assert load_record(out / "run.json", RunRecord).state == "interrupted"


def test_an_error_of_one_process_ends_all_and_is_the_message(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"the process of device 1: .* too little memory for 8 slices") as caught:
        start("runs_out", tmp_path)
    assert caught.value.hint.startswith("--batch 4")
    assert time.monotonic() - begun < 60
    record = load_record(tmp_path / "out" / "run.json", RunRecord)
    assert (record.state, record.epochs_done) == ("interrupted", 1)


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgemamba", "train", "--device", "cpu", "--devices", "2"]
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    done = subprocess.run([*command, "--out", "taken"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.count("error:") == 1 and "taken is not empty and is no earlier run" in done.stderr


def test_choices_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrainConfig.resolve(device="cpu").devices == 1
    with pytest.raises(UsageError, match="--devices is 0"):
        TrainConfig.resolve(device="cpu", devices=0)
    with pytest.raises(UsageError, match="a batch of 7 cannot be shared equally by 2 devices") as caught:
        TrainConfig.resolve(device="cpu", devices=2, batch=7)
    assert caught.value.hint == "--batch 8"
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="names no process"):
        place()
    monkeypatch.setenv("RANK", "2")
    assert TrainConfig.resolve(device="cpu").devices == 4
    with pytest.raises(UsageError, match="--devices is 2, and 4 processes were started"):
        TrainConfig.resolve(device="cpu", devices=2)


def test_a_process_that_is_killed_is_told() -> None:
    program = "import os, signal, time\nif os.environ['RANK'] == '1': os.kill(os.getpid(), 9)\nexit(75)"
    with pytest.raises(DeviceError, match="the process of device 1: was ended by SIGKILL"):
        launch([sys.executable, "-c", program], 2)
    assert lost(RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"))
    assert not lost(RuntimeError("shapes do not fit"))
