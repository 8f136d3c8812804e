"""Segmentation losses: scalars of logits and target, both (B, 1, H, W), the target in [0, 1].

``world`` are the processes that have a share of the batch each: the loss is that of the whole batch (see ``World``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.train.distributed import World

PixelLoss = Callable[[Tensor, Tensor], Tensor]
ALONE = World()


def image_dice(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """Mean over the batch of one minus the soft Dice of an image. Source: UltraLight VM-UNet's BceDice."""
    probability = torch.sigmoid(logits).flatten(1)
    truth = target.flatten(1)
    overlap = (probability * truth).sum(1)
    return 1 - ((2 * overlap + smooth) / (probability.sum(1) + truth.sum(1) + smooth)).mean()


def batch_dice(logits: Tensor, target: Tensor, smooth: float = 1.0, world: World = ALONE) -> Tensor:
    """One minus one soft Dice pooled over the whole batch: empty images cost only their false alarms."""
    overlap, found, true = world.total(*_areas(logits, target))
    return 1 - (2 * overlap + smooth) / (found + true + smooth)


def _areas(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Overlap, found and true, in soft pixels of all images."""
    probability = torch.sigmoid(logits)
    return (probability * target).sum(), probability.sum(), target.sum()


def bce_dice(logits: Tensor, target: Tensor, world: World = ALONE) -> Tensor:
    """Mean binary cross entropy plus the Dice loss per image, smooth 1: the paper's for its UL-VM-UNets."""
    return world.mean(F.binary_cross_entropy_with_logits(logits, target) + image_dice(logits, target))


def bce_batch_dice(logits: Tensor, target: Tensor, world: World = ALONE) -> Tensor:
    """Mean binary cross entropy plus the Dice loss pooled over the batch, smooth 1."""
    entropy = world.share(F.binary_cross_entropy_with_logits(logits, target))
    entropy, overlap, found, true = world.total(entropy, *_areas(logits, target))
    return entropy + 1 - (2 * overlap + 1) / (found + true + 1)


def batch_dice_100(logits: Tensor, target: Tensor, world: World = ALONE) -> Tensor:
    """Dice loss pooled over the batch, smooth 100: the paper's for its U-Net."""
    return batch_dice(logits, target, 100.0, world)


def bce(logits: Tensor, target: Tensor, world: World = ALONE) -> Tensor:
    """Mean binary cross entropy: the paper's for its SegFormer."""
    return world.mean(F.binary_cross_entropy_with_logits(logits, target))


def bce_soft_dice(logits: Tensor, target: Tensor, world: World = ALONE) -> Tensor:
    """Mean binary cross entropy plus a Dice loss pooled over the batch with squares below the line.

    Of a soft target the usual Dice is best met by a hard mask, this one by the target itself (Milletari et al.,
    "V-Net", equation 2).
    """
    probability = torch.sigmoid(logits)
    entropy = world.share(F.binary_cross_entropy_with_logits(logits, target))
    areas = (probability * target).sum(), probability.square().sum(), target.square().sum()
    entropy, overlap, found, true = world.total(entropy, *areas)
    return entropy + 1 - (2 * overlap + 1) / (found + true + 1)


class BatchLoss(Protocol):
    """A loss of the whole batch, of which this process has a share."""

    def __call__(self, logits: Tensor, target: Tensor, *, world: World = ...) -> Tensor:
        """Scalar."""


LOSSES: Mapping[str, BatchLoss] = {
    "bce": bce,
    "bce+batch-dice": bce_batch_dice,
    "bce+soft-dice": bce_soft_dice,
    "bce-dice": bce_dice,
    "batch-dice": batch_dice_100,
}


class Supervision(nn.Module):
    """1x1 heads on the decoder maps while training; none of it is part of the network that is kept.

    Args:
        channels: of the decoder maps, coarse to fine.
        weight: of the finest map's loss; each coarser map counts half as much as the next finer one.
    """

    def __init__(self, channels: Sequence[int], weight: float) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in channels)
        self.weights = [weight * 0.5**i for i in reversed(range(len(channels)))]

    def forward(self, maps: Sequence[Tensor], target: Tensor, loss: PixelLoss) -> Tensor:
        """Weighted sum of the losses of all heads against the mask averaged over each map's pixels.

        Args:
            maps: (B, c, h, w) each, coarse to fine.
            target: (B, 1, H, W).
            loss: of logits and target.
        """
        parts = []
        for head, weight, features in zip(self.heads, self.weights, maps, strict=True):
            share = F.adaptive_avg_pool2d(target, (features.shape[-2], features.shape[-1]))
            parts.append(weight * loss(head(features).float(), share))
        return torch.stack(parts).sum()
