"""Recipes: the paper's numbers, the default's rules, the schedules."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemamba.errors import UsageError
from edgemamba.registry import model_info
from edgemamba.train.recipes import (
    RECIPES,
    default_batch,
    default_init,
    ema_decay,
    ema_weight,
    lr_at,
    peak_lr,
    resolve,
)

UL = model_info("ul-vm-unet")
UNET = model_info("unet")


def test_paper_recipe_is_what_the_paper_ran() -> None:
    compact = resolve("paper", UL, batch=2, steps=1000)
    assert (compact.optimizer, compact.lr, compact.weight_decay, compact.decay) == (
        "adamw",
        3e-4,
        0.01,
        "all",
    )
    assert (compact.loss, compact.checkpoint, compact.augmentation) == ("bce-dice", "last", None)
    assert (compact.clip_norm, compact.deep_supervision, compact.ema_decay, compact.tumour_weight) == (
        0,
        0,
        0,
        1,
    )
    assert (default_batch("paper", UL, "cuda"), default_init("paper")) == (2, "source")
    baseline = resolve("paper", UNET, batch=64, steps=1000)
    assert (baseline.optimizer, baseline.lr, baseline.weight_decay) == ("adam", 3e-4, 0)
    assert (baseline.loss, default_batch("paper", UNET, "cpu")) == ("batch-dice", 64)
    assert {lr_at(compact, step, 1000) for step in range(1000)} == {3e-4}
    assert {ema_weight(compact, step) for step in range(10)} == {1.0}


def test_peak_lr_of_the_default_recipe() -> None:
    assert peak_lr(49_457, 32) == pytest.approx(4e-3)
    assert peak_lr(7_765_985, 32) == pytest.approx(1e-3)
    assert peak_lr(316_228, 32) == pytest.approx(2e-3, rel=1e-4)
    assert peak_lr(49_457, 128) == pytest.approx(8e-3)
    assert peak_lr(49_457, 8) == pytest.approx(4e-3)


def test_a_short_run_warms_up_and_averages_briefly() -> None:
    long = resolve("default", UL, batch=32, steps=14_700)
    assert (long.warmup_steps, long.ema_decay) == (300, pytest.approx(0.99946, abs=1e-5))
    assert ema_decay(100_000) == 0.9995
    short = resolve("default", UL, batch=8, steps=200)
    assert short.warmup_steps == 20
    assert short.ema_decay == pytest.approx(1 - 1 / 25)


@pytest.mark.parametrize("name", RECIPES)
def test_settings_are_json(name: str) -> None:
    settings = resolve(name, UL, batch=8, steps=100).as_settings()
    assert json.loads(json.dumps(settings)) == settings


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="defualt") as caught:
        resolve("defualt", UL, batch=8, steps=1)
    assert "default" in caught.value.hint


@given(st.integers(1, 3000))
def test_schedule_rises_falls_and_ends_at_one_percent(steps: int) -> None:
    recipe = resolve("default", UL, batch=8, steps=steps)
    rates = [lr_at(recipe, step, steps) for step in range(steps)]
    top = min(recipe.warmup_steps, steps - 1)
    assert all(0 < rate <= recipe.lr for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if steps > recipe.warmup_steps + 1:
        assert rates[-1] == pytest.approx(recipe.lr / 100)


@given(st.integers(0, 10**6))
def test_average_weight_starts_high_and_settles(step: int) -> None:
    recipe = resolve("default", UL, batch=32, steps=10**6)
    weight = ema_weight(recipe, step)
    assert 1 - recipe.ema_decay <= weight <= 0.9
    assert weight >= ema_weight(recipe, step + 1)


def test_fine_tuning_is_the_default_at_a_quarter_of_its_rate() -> None:
    info = model_info("ul-vm-unet")
    default, tuned = (resolve(name, info, batch=8, steps=400) for name in ("default", "finetune"))
    assert tuned.lr == pytest.approx(default.lr / 4)
    assert dataclasses.replace(tuned, lr=default.lr, name="default") == default
