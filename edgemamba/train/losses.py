"""Segmentation losses: scalars of logits and target, both (B, 1, H, W), the target in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PixelLoss = Callable[[Tensor, Tensor], Tensor]


def image_dice(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """Mean over the batch of one minus the soft Dice of an image. Source: UltraLight VM-UNet's BceDice."""
    probability = torch.sigmoid(logits).flatten(1)
    truth = target.flatten(1)
    overlap = (probability * truth).sum(1)
    return 1 - ((2 * overlap + smooth) / (probability.sum(1) + truth.sum(1) + smooth)).mean()


def batch_dice(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """One minus one soft Dice pooled over the whole batch: empty images cost only their false alarms."""
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum()
    return 1 - (2 * overlap + smooth) / (probability.sum() + target.sum() + smooth)


def bce_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy plus the Dice loss per image, smooth 1: the paper's for its UL-VM-UNets."""
    return F.binary_cross_entropy_with_logits(logits, target) + image_dice(logits, target)


def bce_batch_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy plus the Dice loss pooled over the batch, smooth 1."""
    return F.binary_cross_entropy_with_logits(logits, target) + batch_dice(logits, target)


def batch_dice_100(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss pooled over the batch, smooth 100: the paper's for its U-Net."""
    return batch_dice(logits, target, smooth=100.0)


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy: the paper's for its SegFormer."""
    return F.binary_cross_entropy_with_logits(logits, target)


def bce_soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy plus a Dice loss pooled over the batch with squares below the line.

    Of a soft target the usual Dice is best met by a hard mask, this one by the target itself (Milletari et al.,
    "V-Net", equation 2).
    """
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum()
    dice = (2 * overlap + 1) / (probability.square().sum() + target.square().sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + 1 - dice


LOSSES: Mapping[str, PixelLoss] = {
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
