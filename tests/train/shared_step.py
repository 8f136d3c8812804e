"""Programs that several processes run, each started by the tests with one argument: a folder."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgemamba.console import Console
from edgemamba.models import build
from edgemamba.registry import model_info
from edgemamba.train import train
from edgemamba.train.augment import pack
from edgemamba.train.distributed import World, joined
from edgemamba.train.learner import Learner
from edgemamba.train.losses import LOSSES
from edgemamba.train.order import share_of
from edgemamba.train.recipes import resolve
from edgemamba.train.segmentation import SegmentationTask
from edgemamba.train.step import TrainStep
from train.runs import tiny

BATCH = 4
# Enough to find lesions.
LONGER: dict[str, Any] = {
    "size": 64,
    "epochs": 10,
    "batch": 4,
    "data_options": {"patients": 10, "slices": 8, "size": 64},
}
BATCHES = [[0, 1, 2, 3], [7, 5, 6, 4]]


def packed() -> Tensor:
    """Masks of very different sizes, so that pooled and averaged Dice losses differ."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    limits = np.array([40, 250, 255, 128, 200, 10, 254, 90], np.uint8)[:, None, None]
    return pack(images, (images[:, 1] > limits).astype(np.uint8))


def steps(world: World, loss: str, supervision: float, model: str = "ul-vm-unet", lr: float = 0.0) -> dict[str, Tensor]:
    """Two steps on shares of the same batches: gradients of the second, weights, losses, norms, score."""
    recipe = dataclasses.replace(
        resolve("default", model_info(model), batch=BATCH, steps=100),
        loss=loss,  # type: ignore[arg-type]
        deep_supervision=supervision,
        augmentation=None,
        clip_norm=0.0,
    )
    torch.manual_seed(0)
    learner = Learner(build(model), recipe, world=world)
    step = TrainStep(learner, SegmentationTask(), (packed(),), batch=BATCH // world.size, steps=2, amp=False)
    step.begin(0)
    order = torch.from_numpy(share_of(np.array(BATCHES), world.rank, world.size))
    for indices in order:
        step.run(indices, lr, 0.5)
    gradients = {n: p.grad.clone() for n, p in learner.parameters.items() if p.grad is not None}
    kept = {name: tensor for name, tensor in learner.clone().items() if not name.startswith("optimizer/")}
    score = torch.tensor(step.score() or 0.0)
    return {**gradients, **kept, "losses": step.losses_so_far(2), "norms": step.norms_so_far(2), "score": score}


def every_loss(world: World) -> dict[str, Tensor]:
    found = {}
    for loss, supervision in [*((loss, 0.5) for loss in LOSSES), ("bce+batch-dice", 0.0)]:
        for name, tensor in steps(world, loss, supervision).items():
            found[f"{loss} {supervision} {name}"] = tensor.contiguous()
    return found


def gradients(folder: Path) -> None:
    """What each process has after its steps."""
    with joined(2, "cpu") as world:
        save_file(every_loss(world), folder / f"{world.rank}.safetensors")
        moved = steps(world, "bce+batch-dice", 0.5, lr=1e-3)
        save_file(
            {name: tensor.contiguous() for name, tensor in moved.items()}, folder / f"moved-{world.rank}.safetensors"
        )
        batch_norm = {name: tensor.contiguous() for name, tensor in steps(world, "bce", 0.0, "unet").items()}
        save_file(batch_norm, folder / f"unet-{world.rank}.safetensors")


def run(folder: Path) -> None:
    """A run by two processes."""
    train(tiny(folder / "out", **LONGER), Console())


def breaks(folder: Path) -> None:
    """The second process's second batch of the second epoch is no number, however often it is drawn."""
    draw, count = TrainStep.draw, [0]
    bad: list[Tensor] = []

    def poisoned(self: TrainStep) -> tuple[Tensor, Tensor]:
        images, target = draw(self)
        count[0] += 1
        if os.environ["RANK"] == "1" and count[0] == 3 + 2:
            bad.append(self.indices.clone())
        if bad and torch.equal(self.indices, bad[0]):
            images[0] = float("nan")
        return images, target

    TrainStep.draw = poisoned  # type: ignore[method-assign]
    _as_the_program(folder)


def runs_out(folder: Path) -> None:
    """The second process alone has too little memory, in its second epoch."""
    own, count = TrainStep._step, [0]

    def out_of_memory(self: TrainStep) -> None:
        count[0] += 1
        if os.environ["RANK"] == "1" and count[0] == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        own(self)

    TrainStep._step = out_of_memory  # type: ignore[method-assign]
    _as_the_program(folder)


def goes_on(folder: Path) -> None:
    """A run that is too long to wait for."""
    _as_the_program(folder, epochs=2000)


def _as_the_program(folder: Path, **changes: int) -> None:
    """Errors as the command line tells them."""
    from edgemamba.cli import main

    def small() -> None:
        train(tiny(folder / "out", **changes), Console())

    main.app.registered_commands[0].callback = small
    sys.argv = ["edgemamba", "train"]
    main.main()


PROGRAMS: dict[str, Callable[[Path], None]] = {
    program.__name__: program for program in (gradients, run, breaks, runs_out, goes_on)
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    PROGRAMS[sys.argv[1]](Path(sys.argv[2]))
