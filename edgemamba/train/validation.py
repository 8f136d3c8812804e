"""One pass over the held-out samples, shared between the processes of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from edgemamba.train.recipes import Recipe
from edgemamba.train.task import Packed, TrainTask, Validation

if TYPE_CHECKING:
    from edgemamba.train.distributed import World


@torch.inference_mode()
def validate(
    task: TrainTask,
    model: nn.Module,
    packed: Packed,
    recipe: Recipe,
    *,
    batch: int,
    layout: torch.memory_format,
    world: World,
) -> Validation:
    """Run ``model`` (evaluation mode) over every sample.

    Process r of n takes the batches r, r + n, ...; they are the batches of one process, and no sum depends on who
    computed it, so the result is the same for any number of processes.

    Args:
        task: what is measured.
        model: on the device.
        packed: the held-out samples, all of them, on the device of every process.
        recipe: has the loss.
        batch: samples a forward pass.
        layout: of the images.
        world: the processes.
    """
    count = len(packed[0])
    measured = torch.zeros(count, task.measures, dtype=torch.float64, device=packed[0].device)
    for begin in range(world.rank * batch, count, world.size * batch):
        part = tuple(tensor[begin : begin + batch] for tensor in packed)
        measured[begin : begin + batch] = task.measure(model, part, recipe, layout)
    return task.summarise(world.add(measured).cpu())
