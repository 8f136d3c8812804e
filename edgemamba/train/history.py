"""The table of a run: one row an epoch, and which epoch is the best so far."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """One epoch. Dice and IoU are at probability 0.5, and None where nothing is true and nothing was found.

    Attributes:
        epoch: 1-based; step: optimizer steps done; lr: the last step's.
        train_loss, train_dice: of the network in training on augmented slices, without the deep supervision.
        val_loss, val_dice_pooled, val_dice_tumour, val_iou: of the averaged weights.
        seconds: of the epoch, validation included; images_per_s: of its training part.
        peak_mem_bytes: of the process on a CPU, of the device's tensors on CUDA, so far.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_dice: float | None
    val_loss: float
    val_dice_pooled: float | None
    val_dice_tumour: float | None
    val_iou: float | None
    seconds: float
    images_per_s: float
    peak_mem_bytes: int


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def best(rows: Iterable[Row]) -> Row | None:
    """The row with the highest pooled validation Dice; the later one of equals."""
    return max(rows, key=lambda row: (row.val_dice_pooled or 0.0, row.epoch), default=None)


def to_csv(rows: Iterable[Row]) -> str:
    """``metrics.csv``: the columns of ``Row``; an undefined value is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(getattr(row, name)) for name in COLUMNS] for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
