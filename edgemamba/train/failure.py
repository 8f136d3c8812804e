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
from torch import Tensor, nn

from edgemamba.files import write_json, write_together
from edgemamba.train.augment import unpack
from edgemamba.train.drawing import INK, SCALE, canvas, finish, font
from edgemamba.train.losses import PixelLoss
from edgemamba.train.plots import CORRECT, FALSE, tint
from edgemamba.train.run_folder import FAILED
from edgemamba.train.step import TrainStep, autocast

_TILE, _COLUMNS, _SHOWN = 128, 8, 32


@dataclasses.dataclass(frozen=True)
class FailedBatch:
    """What a step saw, on the CPU.

    Attributes:
        inputs: float32 (B, 3, H, W), augmented.
        targets: float32 (B, 1, H, W), the mask.
        logits: float32 (B, 1, H, W).
        indices: int64 (B), into the training or validation part.
    """

    inputs: Tensor
    targets: Tensor
    logits: Tensor
    indices: Tensor


@torch.no_grad()
def training_batch(step: TrainStep, seed: int, order: Tensor) -> FailedBatch:
    """The last of an epoch's first steps again, with the weights as they are; ends the training.

    Args:
        step: of the run.
        seed: of the epoch's random numbers.
        order: int64 (steps so far, B), on the device.
    """
    step.begin(seed)
    for indices in order:
        step.indices.copy_(indices)
        images, target = step.draw()
    with autocast(step.amp):
        logits = step.learner.model(images).float()
    return FailedBatch(*(tensor.detach().cpu().contiguous() for tensor in (images, target, logits, order[-1])))


@torch.no_grad()
def validation_batch(
    model: nn.Module, packed: Tensor, loss: PixelLoss, batch: int, layout: torch.memory_format
) -> FailedBatch:
    """The first batch of the validation slices whose loss is not finite; the last one where all of them are."""
    for number, part in enumerate(packed.split(batch)):
        images, target = unpack(part)
        images = images.contiguous(memory_format=layout)
        logits = model(images).float()
        indices = torch.arange(len(part)) + number * batch
        if not bool(torch.isfinite(loss(logits, target))):
            break
    return FailedBatch(*(tensor.cpu().contiguous() for tensor in (images, target, logits, indices)))


def save_failed(out: Path, batch: FailedBatch, ids: Sequence[str], about: dict[str, Any]) -> Path:
    """Write ``failed/`` in the run folder: batch.safetensors, batch.json, sheet.png.

    Args:
        out: run folder.
        batch: what the step saw.
        ids: of the slices of the part that the batch is from.
        about: what, where and when, as JSON.

    Returns:
        The folder.
    """
    folder = out / FAILED
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
    return folder


def _facts(values: Tensor, name: str) -> dict[str, Any]:
    """Range of the finite values, and how many are not."""
    good = values[torch.isfinite(values)]
    low, high = (float(good.min()), float(good.max())) if len(good) else (None, None)
    return {f"{name}_min": low, f"{name}_max": high, f"{name}_not_finite": values.numel() - len(good)}


def _sheet(batch: FailedBatch, ids: Sequence[str]) -> bytes:
    """PNG: every slice with its mask in green, below it its logits in grey and what is not finite in pink."""
    count = min(len(ids), _SHOWN)
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    height = _TILE * batch.inputs.shape[2] // batch.inputs.shape[3]
    step_x, step_y = _TILE + 8, 2 * height + 30
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


def _views(batch: FailedBatch, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    picture, mask, logits = (t[index].numpy() for t in (batch.inputs, batch.targets, batch.logits))
    shown = _grey(picture.transpose(1, 2, 0))
    flat = np.repeat(logits[0][:, :, None], 3, axis=2)
    bad = ~np.isfinite(logits[0])
    return tint(shown, [(mask[0] > 0.5, CORRECT)], 0.4), tint(_grey(flat), [(bad, FALSE)], 1.0)


def _grey(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """8 bits of values of any range, black where they are not finite."""
    finite = np.where(np.isfinite(values), values, np.nan)
    known = finite[~np.isnan(finite)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    scaled = (np.nan_to_num(finite, nan=low).astype(np.float64) - low) / max(high - low, 1e-12)
    return (255 * scaled).round().astype(np.uint8)
