"""Training on a CPU, data included: our loop against the one that handles a sample at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from edgemamba.bench.baselines import chunked_doubling
from edgemamba.bench.ports import port
from edgemamba.bench.timing import interleave, ratio
from edgemamba.models import build_segmentation
from edgemamba.registry import model_info
from edgemamba.train.augment import Augmenter
from edgemamba.train.learner import Learner
from edgemamba.train.losses import LOSSES
from edgemamba.train.recipes import Augmentation, resolve
from edgemamba.train.segmentation import SegmentationTask
from edgemamba.train.step import TrainStep

MODEL, SIZE, SLICES, STEPS = "ul-vm-unet", (256, 256), 64, 10_000
OWN = "our loop, deep supervision and averaging included"
PLAIN = "a sample at a time, our network"
USUAL = "a sample at a time, usual chunked port"


class _OneByOne(TorchDataset[tuple[Tensor, Tensor]]):
    """Decoded slices in memory, each augmented alone as it is asked for."""

    def __init__(self, packed: Tensor, augmenter: Augmenter) -> None:
        self.packed = packed
        self.augmenter = augmenter

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, target = self.augmenter(self.packed[index : index + 1])
        return image[0], target[0]


def from_slices(rounds: int, batch: int = 8) -> dict[str, Any]:
    """Steps of UL-VM-UNet from decoded slices to changed weights, the same augmentation in all."""
    torch.manual_seed(0)
    packed = torch.randint(0, 256, (SLICES, 4, *SIZE), dtype=torch.uint8)
    packed[:, 3] = (packed[:, 3] > 250) * 255
    network = build_segmentation(MODEL)
    others = {PLAIN: build_segmentation(MODEL), USUAL: port(build_segmentation(MODEL), chunked_doubling, batched=True)}
    recipe = resolve("default", model_info(MODEL), batch=batch, steps=STEPS)
    own = TrainStep(Learner(network, recipe, amp=False), SegmentationTask(), (packed,), batch=batch, steps=1, amp=False)

    def ours() -> object:
        own.begin(0)
        own.run(torch.randperm(SLICES)[:batch], 1e-4, 0.001)
        return own.losses

    assert isinstance(recipe.augmentation, Augmentation)
    slices = _OneByOne(packed, Augmenter(recipe.augmentation, SIZE, torch.Generator()))
    contestants = {OWN: ours} | {name: _plain(model, slices, batch) for name, model in others.items()}
    times = interleave(contestants, rounds, warmup=1)
    medians = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
    return {
        "rounds": rounds,
        "cpu_ms_median": {name: round(1e3 * each, 3) for name, each in medians.items()},
        "ratios": [ratio(times, other, OWN).document() for other in others],
        "facts": {
            "batch": batch,
            "images_per_cpu_s": {name: round(batch / each, 2) for name, each in medians.items()},
        },
    }


def _plain(model: torch.nn.Module, slices: _OneByOne, batch: int) -> Any:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    judge = LOSSES["bce+batch-dice"]

    def step() -> object:
        images, target = next(iter(DataLoader(slices, batch_size=batch, shuffle=True)))
        optimizer.zero_grad()
        loss = judge(model(images), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return step
