"""Results of image files from a Bundle or a run: what ``edgemamba predict`` does.

Every image is decoded once before anything runs, so that all bad ones are named together, and results move
into the output folder only when all of them are there. What is written for an image is the task's, by the board's own
``outputs``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgemamba.board import outputs
from edgemamba.board.images import ImageError, of_channels, open_array, open_image, to_input
from edgemamba.console import Console
from edgemamba.errors import InputError, UsageError, VerificationError
from edgemamba.evaluation.predictors import BundlePredictor, RunPredictor, predictor_of
from edgemamba.files import new_folder, write_text

TABLE = "classes.csv"


def predict_images(
    subject: str | Path,
    images: Sequence[Path],
    out: Path,
    console: Console,
    *,
    threshold: float | None = None,
    runtime: str = "auto",
    threads: int = 1,
) -> list[dict[str, Any]]:
    """Run the artifact of a Bundle, or a trained run, on ``images``, into the folder ``out``.

    Segmentation writes ``STEM_mask.png`` (0 and 255) and ``STEM_overlay.png`` at each image's own size,
    classification ``classes.csv`` of the best classes, another project's network ``STEM.npy``. Results of images of
    different folders keep their folders below the one they share. Other files in ``out`` stay.

    Args:
        threshold: segmentation: probability from which a pixel counts as lesion; None takes the Bundle's.

    Returns:
        A row an image: ``image``, the files written for it, and what ``board.outputs`` tells about it.

    Raises:
        InputError: names every image that cannot be read; or ``out`` cannot be written; or a damaged Bundle.
        VerificationError: the model gives NaN or infinity.
        UsageError: two images would write the same files, or a threshold that is not between 0 and 1, or that means
            nothing to this network.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise UsageError(f"the threshold is {threshold}, not between 0 and 1", hint="leave --threshold out")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, not a folder", hint="choose another place with --out")
    names = output_names(images)
    refuse_unreadable(images)
    predictor = predictor_of(str(subject), runtime, threads)
    if predictor.note:
        console.line(predictor.note)
    output = _output(predictor.document, threshold)
    place = out.resolve()
    staged = place.with_name(f".{place.name}.new-{os.getpid()}")
    rows = []
    with new_folder(staged) as folder:
        for path, name in console.track(zip(images, names, strict=True), "predict", len(images)):
            row = _predict_one(predictor, output, path, folder / name)
            written = {key: _moved(value, folder, out) for key, value in row.items()}
            rows.append({"image": str(path), **written})
        if output.summary:
            write_text(folder / TABLE, outputs.table(rows, "csv"))
    _move(staged, place)
    return rows


def _output(document: dict[str, Any], threshold: float | None) -> outputs.Output:
    """The board's rules for this network, with another threshold where one is given."""
    if threshold is not None:
        if document["threshold"] is None:
            raise UsageError(f"a threshold means nothing to {document['name']}", hint="leave --threshold out")
        document["threshold"] = threshold
    return outputs.open_output(document)


def _moved(value: Any, folder: Path, out: Path) -> Any:
    """A written file's path as it will be, anything else as it is."""
    if isinstance(value, str) and Path(value).is_relative_to(folder):
        return str(out / Path(value).relative_to(folder))
    return value


def refuse_unreadable(images: Sequence[Path]) -> None:
    """Decode every image.

    Raises:
        InputError: one line that names each bad image and what is wrong with it.
    """
    faults: list[ImageError] = []
    for path in images:
        if path.suffix == ".npy" and path.is_file():
            # Its shape is checked against the network's when it is run.
            continue
        try:
            open_image(path)
        except ImageError as error:
            faults.append(error)
    if not faults:
        return
    what = "; ".join(error.message for error in faults)
    if len(images) > 1:
        what = f"{len(faults)} of {len(images)} images cannot be used: {what}"
    hint = faults[0].hint if len(faults) == 1 else "nothing was written; mend these or leave them out"
    raise InputError(what, hint=hint)


def output_names(images: Sequence[Path]) -> list[str]:
    """Where each image's results go, without the ending, relative to the output folder.

    Raises:
        UsageError: no images, or two would share one name.
    """
    if not images:
        raise UsageError("no images were given", hint="name one or more image files")
    parents = [path.resolve().parent for path in images]
    shared = Path(os.path.commonpath(parents))
    taken: dict[str, Path] = {}
    for parent, path in zip(parents, images, strict=True):
        name = (parent.relative_to(shared) / path.stem).as_posix()
        if name in taken:
            raise UsageError(
                f"{taken[name]} and {path} would both write {name}",
                hint="predict them into two folders",
            )
        taken[name] = path
    return list(taken)


def _predict_one(
    predictor: BundlePredictor | RunPredictor, output: outputs.Output, path: Path, place: Path
) -> dict[str, Any]:
    channels = predictor.channels
    try:
        if path.suffix == ".npy" and predictor.document["task"] == "tensor":
            x = open_array(path, (1, channels, *predictor.size))
            image: Any = x
        else:
            image = of_channels(path, open_image(path), channels)
            x = to_input(image, predictor.size, predictor.scale)
    except ImageError as error:
        raise InputError(error.message, hint=error.hint) from None
    found = predictor.run(x)
    if not np.isfinite(found).all():
        raise VerificationError(f"the model gives NaN or infinity on {path}", hint="export the Bundle again")
    place.parent.mkdir(parents=True, exist_ok=True)
    return output.write(place, image, found)


def _move(staged: Path, place: Path) -> None:
    """Move the finished folder to ``place``, or its files into it where it exists."""
    if not place.exists():
        staged.rename(place)
        return
    for path in sorted(path for path in staged.rglob("*") if path.is_file()):
        target = place / path.relative_to(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(staged)
