"""Whole runs on phantoms: what they reach, what they leave, and what they refuse."""

from __future__ import annotations

import csv
import dataclasses
import getpass
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgemamba.data import load_arrays, open_ref
from edgemamba.errors import InputError
from edgemamba.models import build
from edgemamba.models.weights import load_weights
from edgemamba.records import RunRecord, load_record
from edgemamba.train import TrainConfig, segmentation, train
from edgemamba.train.recipes import Recipe, resolve
from train.runs import PHANTOMS, QUIET, tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunRecord]:
    """Six epochs at 64x64, enough to find lesions."""
    out = tmp_path_factory.mktemp("run") / "out"
    config = TrainConfig.resolve(
        out=out,
        data_options={"patients": 16, "slices": 16, "size": 64},
        size=64,
        epochs=6,
        device="cpu",
        threads=1,
    )
    return out, train(config, QUIET)


def test_it_learns_to_find_lesions(finished: tuple[Path, RunRecord]) -> None:
    out, record = finished
    assert record.state == "finished"
    assert record.epochs_done == 6
    assert record.best_val_dice_pooled is not None
    assert record.best_val_dice_pooled > 0.5
    assert load_record(out / "run.json", RunRecord) == record


def test_kept_weights_give_the_recorded_dice(finished: tuple[Path, RunRecord]) -> None:
    """By another way: reload the data, load the file, threshold the probabilities, count in NumPy."""
    out, record = finished
    dataset, split = open_ref(record.data)
    arrays = load_arrays(dataset, split.val, record.size, QUIET)
    for name, epoch in (("best", record.best_epoch), ("last", record.epochs_done)):
        model = build(record.model).eval()
        metadata = load_weights(out / "weights" / f"{name}.safetensors", model)
        with torch.inference_mode():
            probability = torch.sigmoid(model(torch.from_numpy(arrays.images).float() / 255))[:, 0].numpy()
        found, truth = probability >= 0.5, arrays.truths > 0
        dice = 2 * np.sum(found & truth) / (found.sum() + truth.sum())
        assert epoch is not None
        row = rows(out)[epoch - 1]
        assert float(row["val_dice_pooled"]) == pytest.approx(float(dice), abs=2e-3)
        assert metadata["epoch"] == str(epoch)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_table_and_pictures(finished: tuple[Path, RunRecord]) -> None:
    out, record = finished
    table = rows(out)
    columns = "epoch,step,lr,train_loss,train_dice,val_loss,val_dice_pooled,val_dice_tumour,val_iou,seconds"
    assert ",".join(table[0]) == columns + ",images_per_s,peak_mem_bytes"
    assert [int(row["epoch"]) for row in table] == list(range(1, 7))
    best = max(table, key=lambda row: float(row["val_dice_pooled"]))
    assert int(best["epoch"]) == record.best_epoch
    for row in table:
        dice, iou = float(row["val_dice_pooled"]), float(row["val_iou"])
        assert dice == pytest.approx(2 * iou / (1 + iou), abs=1e-4)
    with Image.open(out / "curves.png") as curves:
        assert curves.size == (1080, 360)
    samples = sorted(path.name for path in (out / "samples").iterdir())
    assert {"best-1.png", "median-1.png", "worst-1.png"} <= set(samples)


def test_record_says_where_it_ran_but_not_who_or_on_which_machine(finished: tuple[Path, RunRecord]) -> None:
    _, record = finished
    assert record.environment["device"] == "cpu"
    assert record.environment["threads"] == 1
    assert record.environment["packages"]["torch"] == torch.__version__.split("+")[0] or "+" in torch.__version__
    text = json.dumps(record.environment)
    assert platform.node() not in text
    assert f"/{getpass.getuser()}" not in text
    assert record.settings["name"] == "default"


def test_nothing_is_left_half_written(finished: tuple[Path, RunRecord]) -> None:
    out, _ = finished
    assert [path for path in out.rglob("*") if ".tmp-" in path.name] == []


@pytest.mark.parametrize(("model", "batch"), [("ul-vm-unet", 2), ("unet", 8)])
def test_paper_recipe(tmp_path: Path, model: str, batch: int) -> None:
    record = train(tiny(tmp_path / "out", model=model, recipe="paper", batch=batch, epochs=1), QUIET)
    assert (record.init, record.settings["checkpoint"]) == ("source", "last")
    assert record.settings["optimizer"] == ("adam" if model == "unet" else "adamw")
    assert float(rows(tmp_path / "out")[0]["lr"]) == pytest.approx(3e-4)


def test_unet_with_the_default_recipe(tmp_path: Path) -> None:
    record = train(tiny(tmp_path / "out", model="unet", epochs=1), QUIET)
    assert record.settings["lr"] == pytest.approx(1e-3)
    load_weights(tmp_path / "out" / "weights" / "last.safetensors", build("unet"))


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reckless(*arguments: Any, **named: Any) -> Recipe:
        return dataclasses.replace(resolve(*arguments, **named), lr=1e30, warmup_steps=0, clip_norm=0.0)

    monkeypatch.setattr(segmentation, "resolve", reckless)
    with pytest.raises(InputError, match=r"loss is nan in epoch 1, step \d+ .*no epoch is kept") as caught:
        train(tiny(tmp_path / "out"), QUIET)
    assert "--batch" in caught.value.hint
    assert load_record(tmp_path / "out" / "run.json", RunRecord).state == "interrupted"


def test_a_taken_folder_is_refused_and_force_replaces_only_the_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = train(tiny(out, epochs=1), QUIET)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds a run") as caught:
        train(tiny(out, epochs=1), QUIET)
    assert "--resume" in caught.value.hint
    assert "--force" in caught.value.hint
    (out / "samples" / "old.png").write_bytes(b"old")
    second = train(tiny(out, epochs=1, seed=1, force=True), QUIET)
    assert second.weights != first.weights
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "samples" / "old.png").exists()


def test_a_folder_of_something_else_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="no earlier run"):
        train(tiny(tmp_path, force=True), QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
    with pytest.raises(InputError, match="is a file"):
        train(tiny(tmp_path / "precious.txt"), QUIET)


def test_a_set_smaller_than_a_batch_is_one_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = train(tiny(tmp_path / "out", batch=200, epochs=1), QUIET)
    assert "fewer than a batch of 200" in capsys.readouterr().err
    assert record.batch == 200
    assert rows(tmp_path / "out")[0]["step"] == "1"
    assert PHANTOMS["patients"] * PHANTOMS["slices"] == sum(record.data.counts.values())
