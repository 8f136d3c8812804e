"""What stops a run: a loss or gradient that is no number, with its batch kept; memory that is too small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from edgemamba.data import open_dataset, split_dataset
from edgemamba.errors import InputError
from edgemamba.models import RandomModule, build
from edgemamba.records import RunRecord, load_record
from edgemamba.registry import model_info
from edgemamba.train import resume_config, train
from edgemamba.train import run as run_module
from edgemamba.train.augment import Augmenter, pack
from edgemamba.train.class_recipes import resolve_classes
from edgemamba.train.classification import ClassificationTask
from edgemamba.train.failure import save_failed, training_batch, validation_batch
from edgemamba.train.learner import Learner
from edgemamba.train.memory import fitting_batch, ran_out
from edgemamba.train.recipes import resolve
from edgemamba.train.segmentation import SegmentationTask
from edgemamba.train.step import TrainStep
from train.runs import PHANTOMS, QUIET, tiny


@pytest.fixture
def packed() -> Tensor:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    return pack(images, (images[:, 1] > 200).astype(np.uint8))


def make(packed: Tensor, name: str = "default") -> tuple[Learner, TrainStep]:
    torch.manual_seed(0)
    learner = Learner(build("ul-vm-unet"), resolve(name, model_info("ul-vm-unet"), batch=4, steps=100))
    step = TrainStep(learner, SegmentationTask(), (packed,), batch=4, steps=5, amp=False)
    step.begin(77)
    return learner, step


ORDER = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [1, 3, 5, 7], [0, 2, 4, 6], [7, 6, 5, 4]])


@pytest.mark.parametrize("recipe", ["default", "paper"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nothing_changes_from_the_failing_step_on_and_its_batch_comes_back(
    packed: Tensor, recipe: str, what: str
) -> None:
    learner, step = make(packed, recipe)
    for indices in ORDER[:2]:
        step.run(indices, 1e-3, 0.5)
    seen: list[tuple[Tensor, Tensor]] = []
    draw = step.draw
    step.draw = lambda: seen.append(draw()) or seen[-1]  # type: ignore[method-assign]
    bias = learner.model.get_parameter("final.bias")
    hook = None
    if what == "loss":
        bias.data.fill_(float("inf"))
    else:
        hook = bias.register_hook(lambda gradient: gradient * float("inf"))
    poisoned = learner.clone()
    step.run(ORDER[2], 1e-3, 0.5)
    if hook is not None:
        hook.remove()
    for indices in ORDER[3:]:
        step.run(indices, 1e-3, 0.5)
    after = learner.tensors()
    odd = [n for n, t in poisoned.items() if not n.startswith("average/") and not torch.equal(after[n], t)]
    assert not odd
    losses, norms = step.losses_so_far(5), step.norms_so_far(5)
    assert torch.isfinite(losses).tolist()[:3] == [True, True, what == "gradient"]
    assert torch.isfinite(norms).tolist()[:3] == [True, True, False]
    batch = training_batch(step, 77, ORDER[:3])
    assert torch.equal(batch.inputs, seen[0][0]) and torch.equal(batch.targets, seen[0][1])
    assert batch.indices.tolist() == ORDER[2].tolist()
    with torch.no_grad():
        torch.testing.assert_close(batch.logits, learner.model(seen[0][0]), equal_nan=True)


def test_a_batch_is_drawn_again_as_an_augmenter_of_its_own_draws_it(packed: Tensor) -> None:
    learner, step = make(packed)
    batch = training_batch(step, 5, ORDER[:3])
    generator = torch.Generator()
    generator.manual_seed(5)
    assert learner.recipe.augmentation is not None
    augment = Augmenter(learner.recipe.augmentation, (32, 32), generator)
    for indices in ORDER[:3]:
        images, target = augment(packed[indices])
    assert torch.equal(batch.inputs, images) and torch.equal(batch.targets, target)


def test_norms_are_those_of_the_whole_gradient(packed: Tensor) -> None:
    learner, step = make(packed, "paper")
    step.run(ORDER[0], 0.0, 0.5)
    gradients = [p.grad.flatten() for p in learner.parameters.values() if p.grad is not None]
    assert float(step.norms_so_far(1)) == pytest.approx(float(torch.cat(gradients).norm()), rel=1e-5)


def test_the_run_keeps_the_batch_and_goes_on_from_the_epoch_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second epoch's third step gets an input that is no number."""
    draw, count = TrainStep.draw, {"steps": 0}

    def poisoned(self: TrainStep) -> tuple[Tensor, Tensor]:
        images, target = draw(self)
        count["steps"] += 1
        if count["steps"] == steps + 3:
            images[1, 0, 4:9, 4:9] = float("nan")
        return images, target

    dataset = open_dataset("phantoms", None, **PHANTOMS)
    split = split_dataset(dataset, "patient")
    steps = len(split.train) // 4
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "draw", poisoned)
        with pytest.raises(
            InputError, match=r"loss is nan in epoch 2, step 3 .*the weights of epoch 1 are kept"
        ) as caught:
            train(tiny(out, batch=4), QUIET)
    assert "sheet.png" in caught.value.hint and str(out / "failed") in caught.value.message
    about = json.loads((out / "failed" / "batch.json").read_text())
    assert (about["schema"], about["epoch"], about["step"]) == ("edgemamba.failed/1", 2, 3)
    tensors = load_file(out / "failed" / "batch.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        "inputs": (4, 3, 32, 32),
        "targets": (4, 1, 32, 32),
        "logits": (4, 1, 32, 32),
        "indices": (4,),
    }
    ids = [dataset.samples[split.train[int(i)]].id for i in tensors["indices"]]
    assert [entry["id"] for entry in about["slices"]] == ids
    with Image.open(out / "failed" / "sheet.png") as sheet:
        assert sheet.width > 4 * 128
    record = load_record(out / "run.json", RunRecord)
    assert (record.state, record.epochs_done) == ("interrupted", 1)
    assert train(resume_config(out), QUIET).state == "finished"


def test_the_gradient_alone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Learner.clip_gradients
    monkeypatch.setattr(Learner, "clip_gradients", lambda self: clip(self) * float("inf"))
    with pytest.raises(InputError, match=r"norm of the gradient is inf in epoch 1, step 1 .*no epoch is kept"):
        train(tiny(tmp_path / "out"), QUIET)


def test_a_validation_loss_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The averaged weights break, the training loss does not."""
    update = Learner.update_average

    def broken(self: Learner) -> None:
        update(self)
        self.average.get_parameter("final.bias").fill_(float("nan"))

    monkeypatch.setattr(Learner, "update_average", broken)
    with pytest.raises(InputError, match="validation loss is nan in epoch 1"):
        train(tiny(tmp_path / "out"), QUIET)
    tensors = load_file(tmp_path / "out" / "failed" / "batch.safetensors")
    assert not bool(torch.isfinite(tensors["logits"]).any()) and bool(torch.isfinite(tensors["inputs"]).all())


def test_the_first_bad_batch_of_a_validation_is_found(packed: Tensor) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = x[:, :1].clone()
            logits[((x * 255).round() == packed[5, :3]).flatten(1).all(1)] = float("nan")
            return logits

    learner, step = make(packed)
    learner.average = Odd()  # type: ignore[assignment]
    batch = validation_batch(step, (packed,), 3)
    assert batch.indices.tolist() == [3, 4, 5]
    assert torch.isnan(batch.logits).flatten(1).any(1).tolist() == [False, False, True]
    torch.testing.assert_close(batch.inputs, packed[3:6, :3].float() / 255)


def test_a_classifier_whose_own_random_numbers_lie_between_the_draws(tmp_path: Path) -> None:
    """Stochastic depth draws from the step's generator in every forward pass."""
    rng = np.random.default_rng(2)
    pictures = (torch.from_numpy(rng.integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)), torch.arange(8) % 3)
    task = ClassificationTask(["a", "b", "c"])
    torch.manual_seed(0)
    info = model_info("vim")
    recipe = resolve_classes("default", info, batch=4, steps=100)
    learner = Learner(build("vim", classes=3), recipe)
    assert any(isinstance(part, RandomModule) for part in learner.model.modules())
    step = TrainStep(learner, task, pictures, batch=4, steps=5, amp=False)
    step.begin(3)
    seen: list[Tensor] = []
    draw = step.draw
    step.draw = lambda: (seen.append((drawn := draw())[0]), drawn)[1]  # type: ignore[method-assign, func-returns-value]
    for indices in ORDER[:2]:
        step.run(indices, 1e-4, 0.5)
    expected = seen[-1]
    batch = training_batch(step, 3, ORDER[:2])
    assert torch.equal(batch.inputs, expected)
    assert batch.targets.shape == batch.logits.shape == (4, 3)
    save_failed(tmp_path / "failed", batch, [f"p{i}" for i in range(8)], {"what": "loss is nan"})
    with Image.open(tmp_path / "failed" / "sheet.png") as sheet:
        assert sheet.height < 200


def raised(kind: str) -> None:
    """The real errors: torch's on CUDA (which needs no GPU to be raised), torch's and NumPy's on the host."""
    if kind == "cuda":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")
    if kind == "host":
        torch.empty(1 << 50)
    np.empty(1 << 55)


@pytest.mark.parametrize("kind", ["cuda", "host", "numpy"])
def test_too_little_memory_names_a_batch(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainStep, "_step", lambda _self: raised(kind))
    with pytest.raises(InputError, match="too little memory for 12 slices of 32x32 a step") as caught:
        train(tiny(tmp_path / "out", batch=12), QUIET)
    assert caught.value.hint.startswith("--batch 6 (half of it)")
    assert "allocate" in caught.value.message
    with pytest.raises(InputError, match="too little memory for a batch of 1 at 32x32") as caught:
        train(tiny(tmp_path / "one", batch=1), QUIET)
    assert "--size" in caught.value.hint and "--batch" not in caught.value.hint


def test_too_little_memory_for_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "load_arrays", lambda *_: raised("numpy"))
    with pytest.raises(InputError, match="too little memory for the data and network at 32x32") as caught:
        train(tiny(tmp_path / "out"), QUIET)
    assert "a smaller --size" in caught.value.hint


def test_other_errors_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_self: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(TrainStep, "_step", wrong)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(tiny(tmp_path / "out"), QUIET)
    assert not ran_out(RuntimeError("shapes do not fit")) and not ran_out(ValueError("not enough memory"))


@given(
    fixed=st.integers(0, 10**9),
    each=st.integers(10**4, 10**8),
    small=st.integers(1, 16),
    free=st.integers(10**6, 10**11),
)
def test_the_batch_that_fits_is_the_largest_of_its_kind(fixed: int, each: int, small: int, free: int) -> None:
    found = fitting_batch(small, fixed + each * small, 2 * small, fixed + each * 2 * small, free)
    more = found + (1 if found < 8 else 8)
    assert found == 0 or fixed + each * found <= 0.9 * free + 1
    assert fixed + each * more > 0.9 * free - 8 * each * 1e-6 - 1
