"""How classifiers are trained, as plain numbers. Readable without torch.

The Mamba nets have the recipe of small transformers (Hassani et al., "Compact Transformers": AdamW, warm-up and cosine,
label smoothing, mixing), the ResNets that of convolutional ones (Nesterov momentum, strong decay). Both are shortened
with the run: what only pays off in a hundred epochs is left out of a few.
"""

from __future__ import annotations

import math

from edgemamba.accelerator import Device
from edgemamba.errors import UsageError
from edgemamba.registry import ModelInfo
from edgemamba.train.recipes import FINETUNE_LR_SHARE, Checkpoint, PictureAugmentation, Recipe, ema_decay

BATCH = 128
# Fewer steps than these: of a few epochs, of fifty epochs of CIFAR-100.
FEW_STEPS = 2_000
SHORT = 20_000
# Ten epochs of CIFAR-100.
MOST_WARMUP = 3_900
ADAMW_LR, ADAMW_LR_SHORT, ADAMW_LR_FEW = 6e-4, 1e-3, 2e-3
SGD_LR = 0.1


def check_recipe(name: str, info: ModelInfo) -> None:
    """Raise UsageError for a recipe that classifiers do not have."""
    if name == "paper":
        raise UsageError("the paper tells no recipe for its classifiers", hint="leave --recipe out")
    if name == "distill":
        raise UsageError(f"distillation teaches masks; {info.name} classifies", hint="leave --teacher and --recipe out")


def class_batch(device: Device) -> int:
    """Pictures a step where the user says nothing."""
    return BATCH if device == "cuda" else 32


def resolve_classes(
    name: str, info: ModelInfo, *, batch: int, steps: int, checkpoint: Checkpoint | None = None
) -> Recipe:
    """The recipe of this name for one classifier, batch and length of training.

    Args:
        name: default or finetune.
        info: the network.
        batch: pictures a step.
        steps: steps of the whole training.
        checkpoint: which epoch's weights are the result; None takes the best.

    Raises:
        UsageError: another recipe.
    """
    check_recipe(name, info)
    convolutional = info.name.startswith("resnet")
    mix = 0.0 if steps < FEW_STEPS or convolutional else 0.5 if steps < SHORT else 1.0
    adamw = ADAMW_LR_FEW if steps < FEW_STEPS else ADAMW_LR_SHORT if steps < SHORT else ADAMW_LR
    peak = SGD_LR if convolutional else adamw
    # Not lowered for the smaller batches of short runs, as in ``recipes.peak_lr``.
    lr = peak * math.sqrt(max(1.0, batch / BATCH))
    return Recipe(
        name=name,
        optimizer="sgd" if convolutional else "adamw",
        lr=lr * (FINETUNE_LR_SHARE if name == "finetune" else 1.0),
        lr_final=0.01,
        warmup_steps=max(1, min(steps // 10, MOST_WARMUP)),
        weight_decay=5e-4 if convolutional else 0.06,
        decay="matrices",
        clip_norm=1.0,
        loss="cross-entropy",
        deep_supervision=0.0,
        tumour_weight=1,
        natural_share=0.0,
        ema_decay=ema_decay(steps),
        checkpoint=checkpoint or "best",
        augmentation=PictureAugmentation(
            cutout=8 if convolutional else 0,
            mix=mix,
            jitter=0.0 if convolutional or steps < FEW_STEPS else 0.2,
            rotation_degrees=0.0 if convolutional or steps < SHORT else 10.0,
            scale=1.0 if convolutional or steps < FEW_STEPS else 1.15,
        ),
        momentum=0.9 if convolutional else 0.0,
        label_smoothing=0.1,
    )
