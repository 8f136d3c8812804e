"""Draws of an epoch: counts, weights, and that they follow from seed and epoch alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemamba.registry import model_info
from edgemamba.train.order import epoch_order, epoch_seed, share_of, steps_per_epoch
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


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 200),
    size=st.integers(1, 5),
    width=st.integers(1, 6),
    tumour=st.floats(0, 1),
    epoch=st.integers(0, 9),
)
def test_processes_see_together_what_one_sees(samples: int, size: int, width: int, tumour: float, epoch: int) -> None:
    """Any number of samples, divisible or not: equal steps for all, and no sample more often than one would see it."""
    marked = np.random.default_rng(samples).random(samples) < tumour
    recipe = resolve("default", model_info("ul-vm-unet"), batch=size * width, steps=100)
    whole = epoch_order(marked, recipe, batch=size * width, seed=1, epoch=epoch, epochs=10)
    shares = [share_of(whole, rank, size) for rank in range(size)]
    assert {share.shape for share in shares} == {(samples // (size * width), width)}
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), whole)
    if epoch == 9:
        assert len(set(whole.ravel().tolist())) == whole.size
    seeds = {epoch_seed(1, epoch, rank) for rank in range(size)}
    assert len(seeds) == size and epoch_seed(1, epoch) in seeds
