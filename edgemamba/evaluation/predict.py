"""Masks and overlays of image files from a Bundle: what ``edgemamba predict`` does.

Every image is decoded once before anything runs, so that all bad ones are named together, and results move
into the output folder only when all of them are there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgemamba.board.images import ImageError, open_image, overlay, save_image, save_mask, to_input, to_mask
from edgemamba.console import Console
from edgemamba.errors import InputError, UsageError, VerificationError
from edgemamba.evaluation.predictors import BundlePredictor, bundle_predictor
from edgemamba.files import new_folder


def predict_images(
    bundle: Path,
    images: Sequence[Path],
    out: Path,
    console: Console,
    *,
    threshold: float | None = None,
    runtime: str = "auto",
    threads: int = 1,
) -> list[dict[str, Any]]:
    """Segment ``images`` with the artifact of ``bundle`` into the folder ``out``.

    Writes ``STEM_mask.png`` (0 and 255) and ``STEM_overlay.png`` at each image's own size; images of
    different folders keep their folders below the one they share. Other files in ``out`` stay.

    Args:
        threshold: probability from which a pixel counts as lesion; None takes the Bundle's.

    Returns:
        A row an image: image, mask, overlay, width, height, foreground_pixels, foreground_share,
        max_probability.

    Raises:
        InputError: names every image that cannot be read; or ``out`` cannot be written; or a damaged Bundle.
        VerificationError: the model gives NaN or infinity.
        UsageError: two images would write the same files, or the threshold is not between 0 and 1.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise UsageError(f"the threshold is {threshold}, not between 0 and 1", hint="leave --threshold out")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, not a folder", hint="choose another place with --out")
    names = output_names(images)
    refuse_unreadable(images)
    predictor = bundle_predictor(bundle, runtime, threads)
    if predictor.note:
        console.line(predictor.note)
    limit = predictor.threshold if threshold is None else threshold
    place = out.resolve()
    staged = place.with_name(f".{place.name}.new-{os.getpid()}")
    rows = []
    with new_folder(staged) as folder:
        for path, name in console.track(zip(images, names, strict=True), "predict", len(images)):
            row = _predict_one(predictor, path, folder / name, limit)
            files = {kind: str(out / f"{name}_{kind}.png") for kind in ("mask", "overlay")}
            rows.append({"image": str(path), **files, **row})
    _move(staged, place)
    return rows


def refuse_unreadable(images: Sequence[Path]) -> None:
    """Decode every image.

    Raises:
        InputError: one line that names each bad image and what is wrong with it.
    """
    faults: list[ImageError] = []
    for path in images:
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
                f"{taken[name]} and {path} would both write {name}_mask.png",
                hint="predict them into two folders",
            )
        taken[name] = path
    return list(taken)


def _predict_one(predictor: BundlePredictor, path: Path, place: Path, threshold: float) -> dict[str, Any]:
    image = open_image(path)
    height, width = image.shape[:2]
    probability = predictor(to_input(image, predictor.size, predictor.scale))[0]
    if not np.isfinite(probability).all():
        raise VerificationError(f"the model gives NaN or infinity on {path}", hint="export the Bundle again")
    mask = to_mask(probability, threshold, (height, width))
    place.parent.mkdir(parents=True, exist_ok=True)
    save_mask(place.with_name(f"{place.name}_mask.png"), mask)
    save_image(place.with_name(f"{place.name}_overlay.png"), overlay(image, mask))
    foreground = int(np.count_nonzero(mask))
    return {
        "width": width,
        "height": height,
        "foreground_pixels": foreground,
        "foreground_share": foreground / mask.size,
        "max_probability": float(probability.max()),
    }


def _move(staged: Path, place: Path) -> None:
    """Move the finished folder to ``place``, or its files into it where it exists."""
    if not place.exists():
        staged.rename(place)
        return
    for path in sorted(staged.rglob("*.png")):
        target = place / path.relative_to(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(staged)
