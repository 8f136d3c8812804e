"""Classifiers in training: the step written out plainly, whole runs, resuming, what is refused."""

from __future__ import annotations

import copy
import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from data.cifar import write_cifar
from PIL import Image

from edgemamba.data import load_arrays, open_ref
from edgemamba.errors import InputError, UsageError
from edgemamba.models.vim import Vim2d
from edgemamba.models.weights import build_trained
from edgemamba.records import RunRecord, load_record
from edgemamba.registry import model_info
from edgemamba.train import TrainConfig, classification, resume_config, train
from edgemamba.train import run as run_module
from edgemamba.train.class_recipes import resolve_classes
from edgemamba.train.classification import ClassificationTask
from edgemamba.train.learner import Learner
from edgemamba.train.recipes import Recipe
from edgemamba.train.step import TrainStep
from train.runs import QUIET, assert_same_state

SHAPES = {"classes": 3, "images": 12}


def tiny(out: Path, **changes: Any) -> TrainConfig:
    """Two epochs of a small Vim on 36 figures."""
    settings: dict[str, Any] = {"model": "vim-2d-nano", "data_options": SHAPES, "epochs": 2, "batch": 8, "threads": 1}
    return TrainConfig.resolve(out=out, device="cpu", **settings | changes)


def small(drop_path: float = 0.0) -> Vim2d:
    torch.manual_seed(0)
    return Vim2d(16, 2, 8, classes=4, d_state=4, drop_path=drop_path)


def packed(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % 4


@pytest.mark.parametrize("name", ["resnet9", "vim-2d"])
def test_three_steps_equal_plain_training(name: str) -> None:
    recipe = resolve_classes("default", model_info(name), batch=4, steps=100)
    recipe = dataclasses.replace(recipe, augmentation=None)
    assert recipe.optimizer == ("sgd" if name == "resnet9" else "adamw")
    learner = Learner(small(), recipe)
    model = copy.deepcopy(learner.model)
    images, classes = packed()
    step = TrainStep(learner, ClassificationTask("abcd"), (images, classes), batch=4, steps=3, amp=False)
    step.begin(0)
    spared = ("A_log", "pos_embed")
    matrices = [p for n, p in model.named_parameters() if p.ndim >= 2 and not n.endswith(spared)]
    rest = [p for n, p in model.named_parameters() if p.ndim < 2 or n.endswith(spared)]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=1e-3, foreach=False)
    if name == "resnet9":
        optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True, foreach=False)
    right = 0
    for indices in ([0, 1, 2, 3], [4, 5, 6, 7], [1, 3, 9, 11]):
        logits = model(images[indices].float() / 255)
        smooth = F.one_hot(classes[indices], 4) * 0.9 + 0.1 / 4
        loss = -(smooth * torch.log_softmax(logits, 1)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        right += int((logits.argmax(1) == classes[indices]).sum())
        step.run(torch.tensor(indices), 1e-3, 0.5)
        assert float(step.losses_so_far(3)[int(step.position) - 1]) == pytest.approx(float(loss.detach()), abs=1e-5)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(learner.model.get_parameter(key), parameter, rtol=1e-3, atol=2e-5, msg=key)
    assert step.score() == pytest.approx(right / 12)


def test_the_seed_of_the_epoch_decides_which_blocks_are_left_out() -> None:
    recipe = dataclasses.replace(resolve_classes("default", model_info("vim"), batch=12, steps=100), augmentation=None)

    def losses(seed: int) -> list[float]:
        learner = Learner(small(drop_path=0.5), recipe)
        step = TrainStep(learner, ClassificationTask("abcd"), packed(), batch=12, steps=2, amp=False)
        step.begin(seed)
        for _ in range(2):
            step.run(torch.arange(12), 1e-3, 0.5)
        return step.losses_so_far(2).tolist()

    assert losses(1) == losses(1) != losses(2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunRecord]:
    """Small data in CIFAR-100's layout."""
    root = write_cifar(tmp_path_factory.mktemp("data"), classes=4, train=20, test=4)
    out = tmp_path_factory.mktemp("run") / "out"
    return out, train(tiny(out, data="cifar100", data_root=root, data_options={}, epochs=3), QUIET)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_what_a_run_leaves(finished: tuple[Path, RunRecord]) -> None:
    out, record = finished
    assert (record.state, record.epochs_done, record.data.split) == ("finished", 3, "official")
    assert record.labels == ["disc", "square", "cross", "ring"]
    assert record.data.counts == {"train": 72, "val": 8, "test": 16}
    assert record.best_val_dice_pooled is None
    table = rows(out)
    columns = "epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5,seconds,images_per_s,peak_mem_bytes"
    assert ",".join(table[0]) == columns
    assert record.best_val_top1 == max(float(row["val_top1"]) for row in table)
    assert {float(row["val_top5"]) for row in table} == {1.0}
    with Image.open(out / "curves.png") as curves:
        assert curves.size == (1080, 360)
    assert [path.name for path in (out / "samples").iterdir()] == ["worst.png"]
    model = build_trained(record.model, out / "weights" / "best.safetensors", len(record.labels))
    assert sum(p.numel() for p in model.parameters()) == record.parameters
    dataset, split = open_ref(record.data)
    arrays = load_arrays(dataset, split.val, record.size, QUIET)
    with torch.inference_mode():
        first = model(torch.from_numpy(arrays.images).float() / 255).argmax(1).numpy()
    assert record.best_val_top1 == pytest.approx(float(np.mean(first == arrays.truths)))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_interrupted_and_resumed_equals_uninterrupted(
    optimizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*arguments: Any, **named: Any) -> Recipe:
        return dataclasses.replace(resolve_classes(*arguments, **named), optimizer=optimizer, momentum=0.9)

    monkeypatch.setattr(classification, "resolve_classes", changed)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes: dict[str, Any] = {"data_options": {"classes": 2, "images": 10}}
    train(tiny(whole, **changes), QUIET)
    run = run_module.Run(tiny(parts, **changes), QUIET)
    tell = run._tell

    def stop(row: Any) -> None:
        tell(row)
        raise KeyboardInterrupt

    run._tell = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run.epochs()
    assert train(resume_config(parts), QUIET).state == "finished"
    assert_same_state(whole, parts)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reckless(*arguments: Any, **named: Any) -> Recipe:
        recipe = resolve_classes(*arguments, **named)
        return dataclasses.replace(recipe, lr=1e30, warmup_steps=0, clip_norm=0.0)

    monkeypatch.setattr(classification, "resolve_classes", reckless)
    with pytest.raises(InputError, match=r"loss is (nan|inf) in epoch 1"):
        train(tiny(tmp_path / "out"), QUIET)
    assert load_record(tmp_path / "out" / "run.json", RunRecord).state == "interrupted"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data": "phantoms", "data_options": {}}, "vim-2d-nano needs a class for each image; the phantoms data has a"),
        ({"model": "ul-vm-unet", "data": "shapes"}, "ul-vm-unet needs a mask for each image; the shapes data has a"),
        ({"recipe": "paper"}, "the paper tells no recipe for its classifiers"),
        ({"teachers": [Path("runs/a")]}, "distillation teaches masks"),
        ({"split": "official"}, "shapes does not come divided"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=match):
        train(tiny(tmp_path / "out", **changes), QUIET)


def test_defaults(tmp_path: Path) -> None:
    config = TrainConfig.resolve(out=tmp_path, model="vim", device="cpu")
    assert (config.data, config.split, config.size, config.epochs, config.batch) == (
        "shapes",
        "image",
        (32, 32),
        20,
        32,
    )
    config = TrainConfig.resolve(out=tmp_path, model="resnet9", data="cifar100", data_root=tmp_path, device="cpu")
    assert (config.split, config.epochs) == ("official", 100)


def test_recipes_follow_the_length_of_the_run() -> None:
    few, short, long = (
        resolve_classes("default", model_info("vim"), batch=128, steps=steps) for steps in (500, 10_000, 100_000)
    )
    assert (few.lr, short.lr, long.lr) == (2e-3, 1e-3, 6e-4)
    assert [recipe.augmentation.mix for recipe in (few, short, long)] == [0.0, 0.5, 1.0]  # type: ignore[union-attr]
    resnet = resolve_classes("finetune", model_info("resnet50"), batch=512, steps=10_000)
    assert (resnet.optimizer, resnet.lr, resnet.momentum) == ("sgd", 0.05, 0.9)
