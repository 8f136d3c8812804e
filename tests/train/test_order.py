"""Draws of an epoch: counts, weights, and that they follow from seed and epoch alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgemamba.registry import model_info
from edgemamba.train.order import epoch_order, epoch_seed, steps_per_epoch
from edgemamba.train.recipes import resolve

RECIPE = resolve("default", model_info("ul-vm-unet"), batch=8, steps=100)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 9), st.integers(0, 5))
def test_an_epoch_is_full_batches_of_slices_drawn_at_most_by_weight(
    tumour: list[bool], batch: int, epoch: int, seed: int
) -> None:
    flags = np.array(tumour)
    order = epoch_order(flags, RECIPE, batch=batch, seed=seed, epoch=epoch, epochs=10)
    assert order.shape == (steps_per_epoch(len(tumour), batch), batch)
    counts = np.bincount(order.ravel(), minlength=len(tumour))
    limit = np.where(flags & (epoch < 9), 2, 1)
    assert (counts <= limit).all()
    again = epoch_order(flags, RECIPE, batch=batch, seed=seed, epoch=epoch, epochs=10)
    assert np.array_equal(order, again)


def test_tumour_slices_are_drawn_twice_as_often_until_the_last_tenth() -> None:
    flags = np.arange(3000) < 1000
    share = [
        float(flags[epoch_order(flags, RECIPE, batch=30, seed=0, epoch=epoch, epochs=20)].mean()) for epoch in range(20)
    ]
    assert all(0.47 < value < 0.53 for value in share[:18])
    assert share[18:] == [1 / 3, 1 / 3]


def test_seeds_differ_by_epoch_and_run() -> None:
    seeds = {epoch_seed(seed, epoch) for seed in range(20) for epoch in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
