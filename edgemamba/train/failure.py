"""A loss or gradient that is no longer a number: the batch that did it, kept for inspection.

A step whose loss or gradient is not finite changes nothing any more (``Learner.halted``), and what a step sees follows
from seed and step number. So the batch and its logits can be computed again when the check, which on CUDA looks at
steps in groups, finds out: nothing is copied while training.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from edgemamba.files import write_json, write_together
from edgemamba.models import RandomModule
from edgemamba.train.drawing import INK, SCALE, canvas, finish, font
from edgemamba.train.slices import CORRECT, FALSE, tint
from edgemamba.train.step import TrainStep, autocast
from edgemamba.train.task import Packed

_TILE, _COLUMNS, _SHOWN = 128, 8, 32


@dataclasses.dataclass(frozen=True)
class FailedBatch:
    """What a step saw, on the CPU.

    Attributes:
        inputs: float32 (B, 3, H, W), augmented.
        targets: float32 (B, 1, H, W), the mask, or of a classifier (B, K).
        logits: float32, as the targets.
        indices: int64 (B), into the training or validation part.
    """

    inputs: Tensor
    targets: Tensor
    logits: Tensor
    indices: Tensor

    @property
    def finite(self) -> bool:
        """Whether all of inputs and logits are."""
        return bool(torch.isfinite(self.inputs).all() and torch.isfinite(self.logits).all())


@torch.no_grad()
def training_batch(step: TrainStep, seed: int, order: Tensor) -> FailedBatch:
    """The last of an epoch's first steps again, with the weights as they are; ends the training.

    Args:
        step: of the run.
        seed: of the epoch's random numbers.
        order: int64 (steps so far, B), on the device.
    """
    model = step.learner.model
    # Such modules take their random numbers between those of the augmentation.
    draws_too = any(isinstance(part, RandomModule) for part in model.modules())
    step.begin(seed)
    for number, indices in enumerate(order, 1):
        step.indices.copy_(indices)
        images, target = step.draw()
        if draws_too or number == len(order):
            with autocast(step.amp):
                logits = model(images).float()
    return _on_cpu(images, target, logits, order[-1])


@torch.no_grad()
def validation_batch(step: TrainStep, packed: Packed, batch: int) -> FailedBatch:
    """The first batch of the validation samples whose loss is not finite; the last one where all of them are."""
    learner, task = step.learner, step.task
    plain = dataclasses.replace(learner.recipe, augmentation=None)
    for begin in range(0, len(packed[0]), batch):
        part = tuple(tensor[begin : begin + batch] for tensor in packed)
        if not bool(torch.isfinite(task.measure(learner.average, part, learner.recipe, learner.layout)[:, 0]).all()):
            break
    images, target = task.prepare(plain, packed, step.generator)(part)
    logits = learner.average(images.contiguous(memory_format=learner.layout)).float()
    return _on_cpu(images, target, logits, torch.arange(begin, begin + len(images)))


def _on_cpu(*tensors: Tensor) -> FailedBatch:
    return FailedBatch(*(tensor.detach().cpu().contiguous() for tensor in tensors))


def save_failed(folder: Path, batch: FailedBatch, ids: Sequence[str], about: dict[str, Any]) -> None:
    """Write batch.safetensors, batch.json and sheet.png.

    Args:
        folder: for them, new.
        batch: what the step saw.
        ids: of the slices of the part that the batch is from.
        about: what, where and when, as JSON.
    """
    chosen = [ids[int(index)] for index in batch.indices]
    tensors = {name: getattr(batch, name).contiguous() for name in ("inputs", "targets", "logits", "indices")}
    write_together({folder / "batch.safetensors": save(tensors), folder / "sheet.png": _sheet(batch, chosen)})
    slices = [
        {
            "index": int(batch.indices[i]),
            "id": name,
            **_facts(batch.inputs[i], "input"),
            **_facts(batch.logits[i], "logit"),
        }
        for i, name in enumerate(chosen)
    ]
    write_json(folder / "batch.json", {"schema": "edgemamba.failed/1", **about, "slices": slices})


def _facts(values: Tensor, name: str) -> dict[str, Any]:
    """Range of the finite values, and how many are not."""
    good = values[torch.isfinite(values)]
    low, high = (float(good.min()), float(good.max())) if len(good) else (None, None)
    return {f"{name}_min": low, f"{name}_max": high, f"{name}_not_finite": values.numel() - len(good)}


def _sheet(batch: FailedBatch, ids: Sequence[str]) -> bytes:
    """PNG: every input; of masks with the target in green, below it logits in grey and what is not finite in pink."""
    count = min(len(ids), _SHOWN)
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    height = _TILE * batch.inputs.shape[2] // batch.inputs.shape[3]
    step_x, step_y = _TILE + 8, (2 if batch.logits.ndim == 4 else 1) * height + 30
    image, draw = canvas(columns * step_x + 8, rows * step_y + 8)
    for i in range(count):
        x, y = (8 + (i % columns) * step_x) * SCALE, (8 + (i // columns) * step_y) * SCALE
        draw.text((x, y), ids[i][-20:], INK, font(10))
        for place, view in enumerate(_views(batch, i)):
            panel = Image.fromarray(view).resize((_TILE * SCALE, height * SCALE), Image.Resampling.NEAREST)
            image.paste(panel, (x, y + (14 + place * (height + 2)) * SCALE))
    stream = io.BytesIO()
    finish(image).save(stream, "PNG")
    return stream.getvalue()


def _views(batch: FailedBatch, index: int) -> list[NDArray[np.uint8]]:
    shown = _grey(batch.inputs[index].numpy().transpose(1, 2, 0))
    if batch.logits.ndim != 4:
        return [shown]
    mask, logits = batch.targets[index, 0].numpy(), batch.logits[index, 0].numpy()
    flat = np.repeat(logits[:, :, None], 3, axis=2)
    return [tint(shown, [(mask > 0.5, CORRECT)], 0.4), tint(_grey(flat), [(~np.isfinite(logits), FALSE)], 1.0)]


def _grey(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """8 bits of values of any range, black where they are not finite."""
    finite = np.where(np.isfinite(values), values, np.nan)
    known = finite[~np.isnan(finite)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    scaled = (np.nan_to_num(finite, nan=low).astype(np.float64) - low) / max(high - low, 1e-12)
    return (255 * scaled).round().astype(np.uint8)
