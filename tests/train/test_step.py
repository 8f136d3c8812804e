"""One step of training against the same step written out plainly."""

from __future__ import annotations

import copy
import dataclasses
import functools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemamba.errors import InputError
from edgemamba.models import build
from edgemamba.registry import model_info
from edgemamba.train.augment import pack, unpack
from edgemamba.train.distill import Teachers
from edgemamba.train.learner import Learner
from edgemamba.train.losses import LOSSES
from edgemamba.train.recipes import Recipe, resolve
from edgemamba.train.segmentation import SegmentationTask
from edgemamba.train.step import TrainStep

LR, AVERAGE = 1e-3, 0.25


@pytest.fixture
def packed() -> Tensor:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    return pack(images, (images[:, 1] > 200).astype(np.uint8))


def make(packed: Tensor, **changes: object) -> tuple[Learner, TrainStep]:
    recipe = resolve("default", model_info("ul-vm-unet"), batch=4, steps=100)
    recipe = dataclasses.replace(recipe, augmentation=None, **changes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    learner = Learner(build("ul-vm-unet"), recipe)
    step = TrainStep(learner, SegmentationTask(), (packed,), batch=4, steps=3, amp=False)
    step.begin(0)
    return learner, step


def plain_training(learner: Learner, packed: Tensor, batches: list[list[int]]) -> dict[str, Tensor]:
    """The same training with PyTorch's simplest optimizer, in PyTorch's usual layout."""
    recipe = learner.recipe
    model = copy.deepcopy(learner.model).to(memory_format=torch.contiguous_format)
    heads = copy.deepcopy(learner.supervision)
    named = dict(model.named_parameters()) | (
        {} if heads is None else {f"supervision.{name}": p for name, p in heads.named_parameters()}
    )
    matrices = [p for name, p in named.items() if p.ndim >= 2 and not name.endswith("A_log")]
    rest = [p for name, p in named.items() if p.ndim < 2 or name.endswith("A_log")]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=LR,
        foreach=False,
    )
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss = LOSSES[recipe.loss]
    for indices in batches:
        images, target = unpack(packed[indices])
        optimizer.zero_grad()
        logits, maps = model.forward_features(images)
        total = loss(logits, target)
        if heads is not None:
            total = total + heads(maps, target, loss)
        total.backward()
        nn.utils.clip_grad_norm_(named.values(), recipe.clip_norm, foreach=False)
        optimizer.step()
        for name, parameter in model.named_parameters():
            average[name] += AVERAGE * (parameter.detach() - average[name])
    return {f"model/{n}": p.detach() for n, p in model.named_parameters()} | {
        f"average/{n}": p for n, p in average.items()
    }


@pytest.mark.parametrize("supervision", [0.0, 0.5])
def test_three_steps_equal_plain_training(packed: Tensor, supervision: float) -> None:
    learner, step = make(packed, deep_supervision=supervision)
    batches = [[0, 1, 2, 3], [4, 5, 6, 7], [1, 3, 5, 7]]
    expected = plain_training(learner, packed, batches)
    for indices in batches:
        step.run(torch.tensor(indices), LR, AVERAGE)
    found = learner.tensors()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-5, msg=name)
    assert bool(torch.isfinite(step.losses_so_far(3)).all())


def test_training_dice_is_pooled_over_the_epoch(packed: Tensor) -> None:
    learner, step = make(packed)
    overlap = predicted = truth = 0
    for indices in ([0, 1, 2, 3], [4, 5, 6, 7]):
        images, target = unpack(packed[indices])
        with torch.no_grad():
            found = copy.deepcopy(learner.model)(images) >= 0
        overlap += int((found & (target > 0)).sum())
        predicted += int(found.sum())
        truth += int(target.sum())
        step.run(torch.tensor(indices), LR, AVERAGE)
    assert step.score() == pytest.approx(2 * overlap / (predicted + truth), abs=1e-4)


def test_decay_touches_matrices_only(packed: Tensor) -> None:
    learner, _ = make(packed)
    before = learner.clone()
    learner.lr.fill_(0.1)
    for parameter in learner.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    learner.optimizer.step()
    for name, parameter in learner.model.named_parameters():
        kept = parameter.ndim < 2 or name.endswith("A_log")
        factor = 1.0 if kept else 1 - 0.1 * 0.02
        torch.testing.assert_close(parameter.detach(), before[f"model/{name}"] * factor, msg=name)


def test_paper_recipe_decays_everything() -> None:
    info = model_info("ul-vm-unet")
    learner = Learner(build("ul-vm-unet", init="source"), resolve("paper", info, batch=2, steps=10))
    decays = {group["weight_decay"]: len(group["params"]) for group in learner.optimizer.param_groups}
    assert decays == {0.01: len(list(learner.model.parameters()))}


def test_running_statistics_are_averaged_too() -> None:
    info = model_info("unet")
    recipe: Recipe = dataclasses.replace(resolve("default", info, batch=2, steps=10), augmentation=None)
    learner = Learner(build("unet"), recipe)
    learner.model.get_buffer("encoder1.1.running_mean").fill_(4.0)
    learner.model.get_buffer("encoder1.1.num_batches_tracked").fill_(7)
    learner.average_weight.fill_(0.25)
    learner.update_average()
    assert learner.average.get_buffer("encoder1.1.running_mean").unique().tolist() == [1.0]
    assert int(learner.average.get_buffer("encoder1.1.num_batches_tracked")) == 7


def test_a_state_of_another_network_is_refused(packed: Tensor) -> None:
    learner, _ = make(packed)
    with pytest.raises(InputError, match="does not fit"):
        learner.load({name: t for name, t in learner.clone().items() if "final" not in name})
    wrong = learner.clone()
    wrong["model/final.bias"] = torch.zeros(2)
    with pytest.raises(InputError, match=r"final\.bias is \(2,\), expected \(1,\)"):
        learner.load(wrong)


def test_compiled_step_with_teachers_is_the_plain_one(packed: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for a GPU, kernels left as they are: no compiler is needed."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    recipe = dataclasses.replace(resolve("distill", model_info("ul-vm-unet"), batch=4, steps=100), augmentation=None)
    found = []
    for compile in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        teachers = Teachers([build("ul-vm-unet")], recipe.distillation, amp=False)
        learner = Learner(build("ul-vm-unet"), recipe)
        step = TrainStep(
            learner, SegmentationTask(), (packed,), batch=4, steps=2, amp=False, teachers=teachers, compile=compile
        )
        step.begin(0)
        for _ in range(2):
            step.run(torch.arange(4), LR, AVERAGE)
        found.append((step.losses_so_far(2), learner.tensors()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=0)
    for name, tensor in found[0][1].items():
        if "exp_avg" not in name:
            torch.testing.assert_close(tensor, found[1][1][name], rtol=1e-4, atol=1e-5)
