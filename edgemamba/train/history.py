"""The table of a run: one row an epoch, and which epoch is the best so far."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """One epoch.

    Attributes:
        epoch: 1-based; step: optimizer steps done; lr: the last step's.
        train_loss: of the network in training on augmented samples, without the deep supervision.
        val_loss: of the averaged weights.
        scores: by column, ``train_`` of the network in training, ``val_`` of the averaged weights; None where
            undefined.
        seconds: of the epoch, validation included; images_per_s: of its training part.
        peak_mem_bytes: of the process on a CPU, of the device's tensors on CUDA, so far.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    val_loss: float
    scores: dict[str, float | None]
    seconds: float
    images_per_s: float
    peak_mem_bytes: int


def best(rows: Iterable[Row], headline: str) -> Row | None:
    """The row with the highest score in the column ``headline``; the later one of equals."""
    return max(rows, key=lambda row: (row.scores[headline] or 0.0, row.epoch), default=None)


def to_csv(rows: Sequence[Row]) -> str:
    """``metrics.csv``: losses and scores of the training, then of the validation; an undefined value is empty."""
    scores = list(rows[0].scores) if rows else []
    columns = [
        *("epoch", "step", "lr", "train_loss", *(name for name in scores if name.startswith("train_"))),
        *("val_loss", *(name for name in scores if not name.startswith("train_"))),
        *("seconds", "images_per_s", "peak_mem_bytes"),
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell({**vars(row), **row.scores}[name]) for name in columns] for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
