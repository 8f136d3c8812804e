"""Loss, Dice and IoU of a network over a held-out set that lies on the device."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from edgemamba.train.augment import unpack
from edgemamba.train.losses import PixelLoss


@dataclasses.dataclass(frozen=True)
class Validation:
    """What one pass over the held-out slices gave, at probability 0.5.

    Attributes:
        loss: mean over slices of the loss of their batch.
        dice_pooled: over all pixels of the set; None where nothing is true and nothing was found.
        dice_tumour: mean over the slices with tumour; None where there is none.
        iou: over all pixels of the set.
        slices: Dice of each slice, float32 (N); NaN where it has no tumour.
        false_pixels: pixels of false alarm in each slice, int64 (N).
    """

    loss: float
    dice_pooled: float | None
    dice_tumour: float | None
    iou: float | None
    slices: Tensor
    false_pixels: Tensor


@torch.inference_mode()
def validate(model: nn.Module, packed: Tensor, loss: PixelLoss, batch: int, layout: torch.memory_format) -> Validation:
    """Run ``model`` (evaluation mode) over every slice.

    Args:
        model: logits (B, 1, H, W) of images (B, 3, H, W).
        packed: uint8 (N, 4, H, W) on the model's device, see ``augment.pack``.
        loss: the loss to report.
        batch: slices a forward pass.
        layout: of the images.
    """
    losses, overlaps, predictions, truths = [], [], [], []
    for part in packed.split(batch):
        images, target = unpack(part)
        logits = model(images.contiguous(memory_format=layout))
        predicted, truth = (logits >= 0).flatten(1), (target >= 0.5).flatten(1)
        losses.append(loss(logits, target) * len(part))
        overlaps.append((predicted & truth).sum(1))
        predictions.append(predicted.sum(1))
        truths.append(truth.sum(1))
    overlap, predicted, truth = (torch.cat(parts).cpu() for parts in (overlaps, predictions, truths))
    slices = torch.where(truth > 0, 2 * overlap / (predicted + truth), torch.nan)
    both, found, true = (int(counts.sum()) for counts in (overlap, predicted, truth))
    return Validation(
        loss=float(torch.stack(losses).sum()) / len(packed),
        dice_pooled=2 * both / (found + true) if found + true else None,
        dice_tumour=float(slices.nanmean()) if true else None,
        iou=both / (found + true - both) if found + true else None,
        slices=slices,
        false_pixels=predicted - overlap,
    )


@torch.inference_mode()
def predict_masks(model: nn.Module, packed: Tensor) -> Tensor:
    """Masks at probability 0.5, bool (B, H, W) on the CPU, of a packed batch."""
    images, _ = unpack(packed)
    return (model(images)[:, 0] >= 0).cpu()
