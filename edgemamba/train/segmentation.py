"""Training to find masks: Dice and IoU at probability 0.5."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from edgemamba.data import Arrays, Sample
from edgemamba.errors import InputError
from edgemamba.models import SegmentationModel, build_segmentation
from edgemamba.registry import ModelInfo
from edgemamba.train import slices
from edgemamba.train.augment import Augmenter, pack, unpack
from edgemamba.train.config import TrainConfig
from edgemamba.train.losses import LOSSES
from edgemamba.train.recipes import Augmentation, Recipe, resolve
from edgemamba.train.task import Packed, Prepare, TrainTask, Validation

if TYPE_CHECKING:
    from edgemamba.train.learner import Learner


class SegmentationTask(TrainTask):
    """Packed samples are one tensor, uint8 (N, 4, H, W), see ``augment.pack``."""

    name = "segmentation"
    unit = "slices"
    score = "Dice"
    trained = "train_dice"
    headline = "val_dice_pooled"
    lines = (
        ("training", "train_dice"),
        ("validation, all pixels", "val_dice_pooled"),
        ("tumour slices", "val_dice_tumour"),
    )
    chart = "Dice at probability 0.5"
    counts = 3
    measures = 4
    validation_batch = {"cpu": 8, "cuda": 64}  # noqa: RUF012

    def recipe(self, config: TrainConfig, info: ModelInfo, *, batch: int, steps: int) -> Recipe:
        """See ``TrainTask``."""
        return resolve(config.recipe, info, batch=batch, steps=steps, checkpoint=config.checkpoint)

    def build(self, config: TrainConfig) -> SegmentationModel:
        """See ``TrainTask``."""
        return build_segmentation(config.model, init=config.init)

    def pack(self, arrays: Arrays) -> Packed:
        """See ``TrainTask``."""
        return (pack(arrays.images, arrays.truths),)

    def favoured(self, arrays: Arrays, config: TrainConfig) -> NDArray[np.bool_]:
        """Slices with tumour."""
        tumour = np.any(arrays.truths, axis=(1, 2))
        if not tumour.any():
            raise InputError(f"no mask in the training part of {config.data} marks anything", hint="check the masks")
        return tumour

    def prepare(self, recipe: Recipe, packed: Packed, generator: Generator) -> Prepare:
        """Input about [0, 1] and target (B, 1, H, W) in {0, 1}."""
        if not isinstance(recipe.augmentation, Augmentation):
            return lambda drawn: unpack(drawn[0])
        height, width = packed[0].shape[-2:]
        augmenter = Augmenter(recipe.augmentation, (height, width), generator)
        return lambda drawn: augmenter(drawn[0])

    def losses(self, learner: Learner, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``TrainTask``."""
        assert isinstance(learner.model, SegmentationModel)
        judge = functools.partial(LOSSES[learner.recipe.loss], world=learner.world)
        if learner.supervision is None:
            logits = learner.model(images).float()
            loss = judge(logits, target)
            return loss, loss, logits
        logits, maps = learner.model.forward_features(images)
        logits, aided = logits.float(), learner.supervision(maps, target, judge)
        loss = judge(logits, target)
        return loss + aided, loss, logits

    def count(self, logits: Tensor, target: Tensor) -> Tensor:
        """Pixels that are true and found, found, and true."""
        predicted, truth = logits >= 0, target >= 0.5
        return torch.stack([(predicted & truth).sum(), predicted.sum(), truth.sum()])

    def trained_score(self, counts: Sequence[int]) -> float | None:
        """Dice pooled over the epoch's slices; None where nothing is true or found."""
        overlap, predicted, truth = counts
        return 2 * overlap / (predicted + truth) if predicted + truth else None

    def measure(self, model: nn.Module, part: Packed, recipe: Recipe, layout: torch.memory_format) -> Tensor:
        """Loss of the batch, and pixels true and found, found, and true."""
        images, target = unpack(part[0])
        logits = model(images.contiguous(memory_format=layout))
        predicted, truth = (logits >= 0).flatten(1), (target >= 0.5).flatten(1)
        loss = LOSSES[recipe.loss](logits, target).expand(len(images))
        return torch.stack([loss, (predicted & truth).sum(1), predicted.sum(1), truth.sum(1)], 1)

    def summarise(self, measured: Tensor) -> Validation:
        """Scores: Dice and IoU over all pixels, None where nothing is true and nothing was found, and the mean Dice of
        the slices with tumour. Samples: Dice of each slice, NaN where it has no tumour, and its falsely found
        pixels."""
        losses, overlap, predicted, truth = measured.unbind(1)
        dice = torch.where(truth > 0, 2 * overlap / (predicted + truth), torch.nan)
        both, found, true = (int(pixels.sum()) for pixels in (overlap, predicted, truth))
        return Validation(
            loss=float(losses.mean()),
            scores={
                "val_dice_pooled": 2 * both / (found + true) if found + true else None,
                "val_dice_tumour": float(dice.nanmean()) if true else None,
                "val_iou": both / (found + true - both) if found + true else None,
            },
            samples=(dice, (predicted - overlap).long()),
        )

    @torch.inference_mode()
    def save_samples(
        self, folder: Path, model: nn.Module, packed: Packed, samples: Sequence[Sample], seen: Validation
    ) -> None:
        """See ``TrainTask``."""
        dice, false_pixels = (part.numpy() for part in seen.samples)
        for label, index in slices.choose(dice, false_pixels):
            row = packed[0][index : index + 1]
            mask = (model(unpack(row)[0])[0, 0] >= 0).cpu().numpy()
            title = f"{label}: {samples[index].id}"
            slices.save_sample(folder / f"{label}.png", row[0].cpu().numpy(), mask, title)
