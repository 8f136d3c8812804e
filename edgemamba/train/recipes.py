"""How a network is trained, as plain numbers. Readable without torch.

``default`` is edgemamba's own; ``paper`` is what the authors of the compact Mamba nets ran (constant learning
rate, no augmentation, last epoch), with one difference: images are RGB here and BGR there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from edgemamba.accelerator import Device
from edgemamba.errors import UsageError, did_you_mean
from edgemamba.registry import ModelInfo

Loss = Literal["cross-entropy", "bce+batch-dice", "bce+soft-dice", "bce-dice", "batch-dice", "bce"]
Init = Literal["mamba", "source"]
Checkpoint = Literal["best", "last"]

RECIPES: Mapping[str, str] = {
    "default": "augmentation, AdamW with decay on matrices, warm-up and cosine, EMA, deep supervision",
    "finetune": "the default from given weights on, at a quarter of its learning rate",
    "distill": "the default towards the probabilities of trained teachers",
    "paper": "what the paper ran: constant learning rate, no augmentation, last epoch",
}

SMALL_NET = 100_000
LARGE_NET = 1_000_000
PEAK_LR_SMALL = 4e-3
PEAK_LR_LARGE = 1e-3
LR_BATCH = 32
FINETUNE_LR_SHARE = 0.25
DISTILLATION = 0.6
# The paper's nets that are no UL-VM-UNet. Its ResNets began with ImageNet weights, its SegFormer saw 224x224.
_PAPER_BATCH = {
    "unet": 64,
    "resnet18-seg": 64,
    "resnet50-seg": 64,
    "u-mamba-bot": 32,
    "u-mamba-bot-pp": 64,
    "segformer": 16,
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of a training slice; every probability is per slice.

    Attributes:
        flip: probability of a mirror image, separately left-right and up-down.
        affine: probability of a rotation, scaling and shift.
        rotation_degrees: largest rotation either way.
        scale: largest scaling; the smallest is its inverse.
        shift: largest shift as a share of the side.
        elastic: probability of a smooth random deformation.
        elastic_std: its standard deviation, as a share of half a side.
        intensity: probability of gain, bias and gamma.
        gain_std: of the logarithm of the gain, drawn per channel.
        bias_std: of an offset shared by the channels (full range = 1).
        gamma_std: of the logarithm of the exponent.
        noise: probability of Gaussian noise.
        noise_std: its standard deviation.
        channel_drop: probability that the first or the last channel is replaced by the middle one (FLAIR),
            which is how the LGG set itself fills a missing sequence.
        shear: largest shear either way, with every rotation.
        bias_field: probability of a smooth gain over the image, as of a coil.
        bias_field_std: of its logarithm.
        blur: probability of a 3x3 mean mixed in, or (sharpening) taken away.
        holes: probability of two black rectangles; the mask keeps what is under them.
        hole_size: their largest side as a share of the image's.
    """

    flip: float = 0.5
    affine: float = 0.9
    rotation_degrees: float = 20.0
    scale: float = 1.25
    shift: float = 0.05
    elastic: float = 0.3
    elastic_std: float = 0.03
    intensity: float = 0.5
    gain_std: float = 0.15
    bias_std: float = 0.03
    gamma_std: float = 0.2
    noise: float = 0.15
    noise_std: float = 0.03
    channel_drop: float = 0.1
    shear: float = 0.0
    bias_field: float = 0.0
    bias_field_std: float = 0.2
    blur: float = 0.0
    holes: float = 0.0
    hole_size: float = 0.15


@dataclasses.dataclass(frozen=True)
class PictureAugmentation:
    """Random changes of a training picture with a class.

    Attributes:
        flip: probability of a mirror image.
        shift: largest move either way, whole pixels; what comes in is black.
        scale: largest scaling; the smallest is its inverse.
        rotation_degrees: largest rotation either way.
        jitter: largest relative change of brightness, contrast and saturation.
        cutout: side of a black square, pixels.
        mix: probability that a picture is mixed with another one, half of them as a whole, half with a rectangle of
            it; the target is mixed alike.
    """

    flip: float = 0.5
    shift: int = 4
    scale: float = 1.0
    rotation_degrees: float = 0.0
    jitter: float = 0.0
    cutout: int = 0
    mix: float = 0.0


# For networks with capacity to spare; it helped a U-Net on new patients and hurt a net of 47 thousand parameters.
STRONG = Augmentation(
    rotation_degrees=30.0,
    scale=1.4,
    elastic=0.4,
    intensity=0.7,
    gain_std=0.25,
    gamma_std=0.3,
    noise=0.2,
    shear=0.15,
    bias_field=0.3,
    blur=0.3,
    holes=0.2,
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One fully resolved recipe: nothing in it depends on anything else any more.

    Attributes:
        name: ``default``, ``finetune`` or ``paper``.
        optimizer: ``adamw`` (decoupled decay), ``adam``, or ``sgd`` with Nesterov momentum.
        lr: peak learning rate.
        lr_final: last learning rate as a share of the peak; 1 keeps it constant.
        warmup_steps: steps of linear warm-up.
        weight_decay: strength.
        decay: ``matrices`` spares tensors of less than two dimensions, A_log and embeddings of places; ``all`` spares
            nothing.
        clip_norm: largest norm of the whole gradient; 0 leaves it alone.
        loss: name in ``edgemamba.train.losses.LOSSES``, or of a classifier cross-entropy.
        deep_supervision: weight of the head on the finest decoder map, halved with every coarser map; 0 has
            no heads.
        tumour_weight: how often a slice with tumour is drawn for each time one without is.
        natural_share: last share of the epochs, in which every slice is drawn equally often.
        ema_decay: of the averaged weights that are validated and kept; 0 keeps the weights themselves.
        checkpoint: which of ``weights/best`` and ``weights/last`` is the result of the run.
        augmentation: None leaves the slices as they are.
        distillation: share of the teachers' probabilities in the target; 0 has no teachers.
        momentum: of sgd.
        label_smoothing: share of the target that is spread over all classes.
    """

    name: str
    optimizer: Literal["adamw", "adam", "sgd"]
    lr: float
    lr_final: float
    warmup_steps: int
    weight_decay: float
    decay: Literal["matrices", "all"]
    clip_norm: float
    loss: Loss
    deep_supervision: float
    tumour_weight: int
    natural_share: float
    ema_decay: float
    checkpoint: Checkpoint
    augmentation: Augmentation | PictureAugmentation | None
    distillation: float = 0.0
    momentum: float = 0.0
    label_smoothing: float = 0.0

    def as_settings(self) -> dict[str, Any]:
        """The recipe as JSON."""
        return dataclasses.asdict(self)


def default_batch(name: str, info: ModelInfo, device: Device) -> int:
    """Slices a step where the user says nothing; a GPU needs more of them to be busy."""
    check_name(name)
    if name == "paper":
        return _PAPER_BATCH.get(info.name, 2)
    return 32 if device == "cuda" else 8


def default_init(name: str) -> Init:
    """Initialisation where the user says nothing."""
    check_name(name)
    return "source" if name == "paper" else "mamba"


def check_name(name: str) -> None:
    """Raise UsageError unless ``name`` is a recipe."""
    if name not in RECIPES:
        raise UsageError(f"no recipe is named {name!r}", hint=did_you_mean(name, RECIPES))


def resolve(name: str, info: ModelInfo, *, batch: int, steps: int, checkpoint: Checkpoint | None = None) -> Recipe:
    """The recipe of this name for one network, batch and length of training.

    Args:
        name: a recipe.
        info: the network.
        batch: slices a step.
        steps: steps of the whole training.
        checkpoint: which epoch's weights are the result; None takes the recipe's.

    Raises:
        UsageError: unknown recipe.
    """
    check_name(name)
    if name == "paper":
        return dataclasses.replace(_paper(info), checkpoint=checkpoint or "last")
    distil = name == "distill"
    share = FINETUNE_LR_SHARE if name == "finetune" else 1.0
    return Recipe(
        name=name,
        optimizer="adamw",
        lr=share * peak_lr(info.parameters, batch),
        lr_final=0.01,
        warmup_steps=min(300, max(1, steps // 10)),
        weight_decay=0.02,
        decay="matrices",
        clip_norm=1.0,
        loss="bce+soft-dice" if distil else "bce+batch-dice",
        deep_supervision=0.5,
        tumour_weight=2,
        natural_share=0.1,
        ema_decay=ema_decay(steps),
        checkpoint=checkpoint or "best",
        augmentation=STRONG if info.parameters >= LARGE_NET else Augmentation(),
        distillation=DISTILLATION if distil else 0.0,
    )


def peak_lr(parameters: int, batch: int) -> float:
    """Peak learning rate of the default recipe.

    4e-3 up to 0.1 M parameters, 1e-3 from 1 M on, geometric between them, times the square root of batch / 32
    for larger batches. It is not lowered for smaller ones: those serve short runs, which measured better at
    the full rate (phantoms, batch 8, 192 steps).
    """
    share = math.log(parameters / SMALL_NET) / math.log(LARGE_NET / SMALL_NET)
    share = min(1.0, max(0.0, share))
    peak = PEAK_LR_SMALL ** (1 - share) * PEAK_LR_LARGE**share
    return peak * math.sqrt(max(1.0, batch / LR_BATCH))


def ema_decay(steps: int) -> float:
    """Decay that averages over the last eighth of the training, at most over 2,000 steps (0.9995)."""
    return 1 - 1 / min(2000, max(4, steps // 8))


def _paper(info: ModelInfo) -> Recipe:
    """Source: the notebooks of lxaw/mamba-vs-else-vision."""
    segformer = info.name == "segformer"
    pooled = info.name in _PAPER_BATCH and not segformer
    return Recipe(
        name="paper",
        optimizer="adam" if pooled else "adamw",
        lr=1e-4 if segformer else 3e-4,
        lr_final=1.0,
        warmup_steps=0,
        weight_decay=0.0 if pooled else 5e-5 if segformer else 0.01,
        decay="all",
        clip_norm=0.0,
        loss="batch-dice" if pooled else "bce" if segformer else "bce-dice",
        deep_supervision=0.0,
        tumour_weight=1,
        natural_share=0.0,
        ema_decay=0.0,
        checkpoint="last",
        augmentation=None,
    )


def lr_at(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate of 0-based ``step`` out of ``steps``: linear warm-up, then half a cosine."""
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / (recipe.warmup_steps + 1)
    progress = (step - recipe.warmup_steps) / max(1, steps - 1 - recipe.warmup_steps)
    return recipe.lr * (recipe.lr_final + (1 - recipe.lr_final) * (1 + math.cos(math.pi * min(1.0, progress))) / 2)


def ema_weight(recipe: Recipe, step: int) -> float:
    """Share of the new weights in the average after 0-based step t: 1 - min(decay, (1 + t) / (10 + t))."""
    return 1 - min(recipe.ema_decay, (1 + step) / (10 + step))
