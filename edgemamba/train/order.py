"""Which slices a step sees: a function of seed and epoch alone, so a resumed run draws the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemamba.train.recipes import Recipe


def steps_per_epoch(samples: int, batch: int) -> int:
    """Full batches an epoch; the rest of the slices waits for the next epoch's shuffle."""
    return samples // batch


def share_of(order: NDArray[np.int64], rank: int, size: int) -> NDArray[np.int64]:
    """What process ``rank`` of ``size`` sees of an epoch: its columns of every step, (steps, batch / size).

    Every process has the same number of steps, and together they see what one process would, no sample twice.
    """
    width = order.shape[1] // size
    return order[:, rank * width : (rank + 1) * width]


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Seed of the device's random numbers in one epoch (0-based) of process ``rank``, 63 bits."""
    high, low = np.random.SeedSequence([seed, epoch, 1, *([rank] if rank else [])]).generate_state(2)
    return (int(high) << 31 | int(low) >> 1) & (2**63 - 1)


def epoch_order(
    tumour: NDArray[np.bool_], recipe: Recipe, *, batch: int, seed: int, epoch: int, epochs: int
) -> NDArray[np.int64]:
    """Order of one epoch.

    Slices with tumour lie ``tumour_weight`` times in the pool that is shuffled, except in the last
    ``natural_share`` of the epochs; the epoch has as many slices as the set either way.

    Args:
        tumour: (N) whether each slice has tumour.
        recipe: weights of the draw.
        batch: slices a step.
        seed: of the run.
        epoch: 0-based, of ``epochs``.

    Returns:
        int64 (steps, batch), indices into the training set.
    """
    natural = epoch >= epochs - round(recipe.natural_share * epochs)
    repeats = np.where(tumour, 1 if natural else recipe.tumour_weight, 1)
    pool = np.repeat(np.arange(len(tumour)), repeats)
    shuffled = np.random.default_rng([seed, epoch, 0]).permutation(pool)
    steps = steps_per_epoch(len(tumour), batch)
    return shuffled[: steps * batch].reshape(steps, batch)
