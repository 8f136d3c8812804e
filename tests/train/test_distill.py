"""Distillation: what the teachers add to the target, and which teachers are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from edgemamba.errors import InputError, UsageError
from edgemamba.registry import MODELS
from edgemamba.train import resume_config, train
from edgemamba.train.distill import Teachers
from edgemamba.train.losses import LOSSES
from edgemamba.train.recipes import DISTILLATION, STRONG, resolve
from train.runs import QUIET, assert_same_state, tiny


class Constant(nn.Module):
    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x[:, :1], self.logit)


def test_target_is_mask_and_mean_probability() -> None:
    teachers = Teachers([Constant(0.0), Constant(2.0)], 0.6, amp=False)
    mask = (torch.rand(2, 1, 4, 4) > 0.5).float()
    taught = (torch.tensor([0.0, 2.0]).sigmoid()).mean()
    expected = 0.4 * mask + 0.6 * taught
    torch.testing.assert_close(teachers.soften(torch.rand(2, 3, 4, 4), mask), expected)


def test_loss_is_least_at_the_soft_target() -> None:
    """The usual Dice pulls a probability of 0.7 towards 1; this loss has no gradient there."""
    target = torch.tensor([0.7, 0.2, 0.9, 0.05]).view(1, 1, 2, 2)
    logits = torch.logit(target).requires_grad_()
    LOSSES["bce+soft-dice"](logits, target).backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-6
    pulled = torch.logit(target).requires_grad_()
    LOSSES["bce+batch-dice"](pulled, target).backward()
    assert pulled.grad is not None and pulled.grad.abs().max() > 1e-3


def test_student_records_its_teachers_and_resumes_with_them(tmp_path: Path) -> None:
    teacher, student, whole = tmp_path / "teacher", tmp_path / "student", tmp_path / "whole"
    train(tiny(teacher, split="fold:1", epochs=1), QUIET)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(student, split="fold:1", teachers=[teacher]), interrupted_after(1))
    record = train(resume_config(student), QUIET)
    again = train(tiny(whole, split="fold:1", teachers=[teacher]), QUIET)
    assert record.recipe == again.recipe == "distill"
    (told,) = record.environment["teachers"]
    saved = json.loads((teacher / "run.json").read_text())["weights"]
    assert told["model"] == "ul-vm-unet" and told["weights_sha256"] == saved["weights/best.safetensors"]
    assert_same_state(student, whole)


def interrupted_after(epochs: int) -> object:
    """A console that presses Ctrl-C when so many epochs have been told."""
    from edgemamba.console import Console

    class Impatient(Console):
        seen = 0

        def line(self, text: str) -> None:
            if text.startswith("epoch"):
                self.seen += 1
                if self.seen == epochs:
                    raise KeyboardInterrupt

    return Impatient(quiet=True)


def test_teacher_of_another_split_is_refused(tmp_path: Path) -> None:
    """It has seen the student's test patients."""
    train(tiny(tmp_path / "teacher", split="fold:1", epochs=1), QUIET)
    with pytest.raises(InputError, match="was trained on"):
        train(tiny(tmp_path / "student", split="fold:2", teachers=[tmp_path / "teacher"]), QUIET)
    assert not (tmp_path / "student").exists()


def test_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="learns from trained runs"):
        tiny(tmp_path, recipe="distill")
    with pytest.raises(UsageError, match="has no teachers"):
        tiny(tmp_path, recipe="paper", teachers=[tmp_path])
    small = resolve("distill", MODELS["edge-unet"], batch=8, steps=10, checkpoint="last")
    assert (small.distillation, small.loss, small.checkpoint) == (DISTILLATION, "bce+soft-dice", "last")
    assert resolve("default", MODELS["unet"], batch=8, steps=10).augmentation == STRONG
    assert resolve("default", MODELS["edge-unet"], batch=8, steps=10).augmentation != STRONG
