"""The curves of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from edgemamba.files import write_bytes
from edgemamba.train.drawing import FAINT, INK, SCALE, Colour, Line, canvas, chart, finish, font
from edgemamba.train.history import Row, best
from edgemamba.train.task import TrainTask

BLUE: Colour = (0, 105, 180)
ORANGE: Colour = (224, 120, 0)
GREEN: Colour = (0, 140, 100)

_COLOURS = (BLUE, ORANGE, GREEN)


def save_curves(path: Path, rows: Sequence[Row], task: TrainTask, title: str) -> None:
    """Draw loss, scores and learning rate over the epochs as one PNG."""
    epochs = [float(row.epoch) for row in rows]
    image, draw = canvas(1080, 360)
    draw.text((16 * SCALE, 12 * SCALE), title, INK, font(15))
    top = best(rows, task.headline)
    value = None if top is None else top.scores[task.headline]
    if top is not None and value is not None:
        text = f"best validation {task.score} {value:.4f} at epoch {top.epoch}"
        draw.text((1064 * SCALE, 14 * SCALE), text, FAINT, font(12), anchor="ra")
    loss = [
        Line("training", BLUE, epochs, [row.train_loss for row in rows]),
        Line("validation", ORANGE, epochs, [row.val_loss for row in rows]),
    ]
    scores = [
        Line(label, colour, epochs, [row.scores[column] for row in rows])
        for (label, column), colour in zip(task.lines, _COLOURS, strict=True)
    ]
    chart(draw, (8, 44, 360, 356), "loss", loss, "epoch", log=True)
    chart(draw, (364, 44, 728, 356), task.chart, scores, "epoch")
    lr = [Line("learning rate", BLUE, epochs, [row.lr for row in rows])]
    chart(draw, (732, 44, 1072, 356), "learning rate at the end of the epoch", lr, "epoch")
    save_picture(path, finish(image))


def save_picture(path: Path, image: Image.Image) -> None:
    """Write a PNG atomically."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=False)
    write_bytes(path, stream.getvalue())
