"""Training to tell classes: how often the right one is first (top-1), or among the first five (top-5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from edgemamba.data import Arrays, Sample
from edgemamba.errors import InputError
from edgemamba.models import Network, build
from edgemamba.registry import ModelInfo
from edgemamba.train.augment_pictures import PictureAugmenter
from edgemamba.train.class_recipes import resolve_classes
from edgemamba.train.config import TrainConfig
from edgemamba.train.pictures import save_worst
from edgemamba.train.recipes import PictureAugmentation, Recipe
from edgemamba.train.task import Packed, Prepare, TrainTask, Validation

if TYPE_CHECKING:
    from edgemamba.train.learner import Learner

TOP = 5


class ClassificationTask(TrainTask):
    """Packed samples are pictures uint8 (N, 3, H, W) and classes int64 (N)."""

    name = "classification"
    unit = "pictures"
    score = "top-1"
    trained = "train_top1"
    headline = "val_top1"
    lines = (("training", "train_top1"), ("validation, first", "val_top1"), ("among the first five", "val_top5"))
    chart = "share of pictures with the right class"
    counts = 2
    measures = 4
    validation_batch = {"cpu": 32, "cuda": 512}  # noqa: RUF012

    def recipe(self, config: TrainConfig, info: ModelInfo, *, batch: int, steps: int) -> Recipe:
        """See ``TrainTask``."""
        return resolve_classes(config.recipe, info, batch=batch, steps=steps, checkpoint=config.checkpoint)

    def build(self, config: TrainConfig) -> Network:
        """See ``TrainTask``."""
        return build(config.model, init=config.init, classes=len(self.labels))

    def pack(self, arrays: Arrays) -> Packed:
        """See ``TrainTask``."""
        return torch.from_numpy(arrays.images), torch.from_numpy(np.asarray(arrays.truths, np.int64))

    def favoured(self, arrays: Arrays, config: TrainConfig) -> NDArray[np.bool_]:
        """None: every picture is drawn equally often."""
        if len(np.unique(arrays.truths)) < 2:
            raise InputError(f"the training part of {config.data} has one class only", hint="add pictures of others")
        return np.zeros(len(arrays.truths), np.bool_)

    def prepare(self, recipe: Recipe, packed: Packed, generator: Generator) -> Prepare:
        """Input about [0, 1] and target float32 (B, K)."""
        classes = len(self.labels)
        if not isinstance(recipe.augmentation, PictureAugmentation):
            return lambda drawn: (_scaled(drawn[0]), F.one_hot(drawn[1], classes).float())
        height, width = packed[0].shape[-2:]
        augmenter = PictureAugmenter(recipe.augmentation, (height, width), classes, generator)
        return lambda drawn: augmenter(*drawn)

    def losses(self, learner: Learner, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``TrainTask``."""
        logits = learner.model(images).float()
        loss = F.cross_entropy(logits, target, label_smoothing=learner.recipe.label_smoothing)
        loss = learner.world.mean(loss)
        return loss, loss, logits

    def count(self, logits: Tensor, target: Tensor) -> Tensor:
        """Pictures whose first class has the largest share of the target, and pictures."""
        right = (logits.argmax(1) == target.argmax(1)).sum()
        return torch.stack([right, torch.full_like(right, len(logits))])

    def trained_score(self, counts: Sequence[int]) -> float | None:
        """Top-1 over the epoch's pictures, mixed ones counting for the class they have most of."""
        right, total = counts
        return right / total if total else None

    def measure(self, model: nn.Module, part: Packed, recipe: Recipe, layout: torch.memory_format) -> Tensor:
        """Loss, rank and probability of the right class, and the class that is first, of each picture."""
        images, classes = part
        logits = model(_scaled(images).contiguous(memory_format=layout)).float()
        loss = F.cross_entropy(logits, classes, reduction="none", label_smoothing=recipe.label_smoothing)
        first = logits.argmax(1)
        # Of equal logits the first counts, as in the artifact.
        rank = torch.where(first == classes, 0, (logits > logits.gather(1, classes[:, None])).sum(1).clamp(min=1))
        right = torch.softmax(logits, 1).gather(1, classes[:, None])[:, 0]
        return torch.stack([loss, rank, right, first], 1)

    def summarise(self, measured: Tensor) -> Validation:
        """Scores: top-1 and top-5. Samples: probability of the right class, and the class that is first."""
        losses, rank, right, first = measured.unbind(1)
        return Validation(
            loss=float(losses.mean()),
            scores={"val_top1": float((rank < 1).double().mean()), "val_top5": float((rank < TOP).double().mean())},
            samples=(right, first.long()),
        )

    def save_samples(
        self, folder: Path, model: nn.Module, packed: Packed, samples: Sequence[Sample], seen: Validation
    ) -> None:
        """The pictures whose right class is least probable."""
        del model, samples
        right, first = (part.numpy() for part in seen.samples)
        images, truths = (part.cpu().numpy() for part in packed)
        save_worst(folder / "worst.png", images, truths, first, right, self.labels)


def _scaled(images: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]."""
    return images.float().mul_(1 / 255)
