"""Does an artifact compute what the trained network computes? Every pixel of at least 100 images is
compared.

The artifact runs through the Bundle's own session (``board.runner``), as it will on the board; the
reference is the fp32 PyTorch network. Dice alone is no gate: a quantized net can keep its pooled Dice while
its masks move, so the masks themselves are compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemamba.board import runner
from edgemamba.bundle.session import board_errors
from edgemamba.errors import VerificationError
from edgemamba.presets import Precision
from edgemamba.registry import OUTPUTS
from edgemamba.stages.plan import THRESHOLD

if TYPE_CHECKING:
    from edgemamba.sources import Source
    from edgemamba.stages.artifact import Artifact
    from edgemamba.stages.calibration import Floats, ImageSet

INPUT = "image"
OUTPUT = OUTPUTS["segmentation"]
_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Bar:
    """What an artifact of one precision must reach.

    Attributes:
        mean_abs_diff: largest mean |difference| of the probability; None: not judged.
        agreement: least agreement of the masks with those of the reference.
        by_dice: agreement is the Dice between the masks, pooled over all images; else the share of equal
        pixels.
    """

    mean_abs_diff: float | None
    agreement: float
    by_dice: bool


BARS: dict[Precision, Bar] = {
    "fp32": Bar(1e-6, 0.99999, by_dice=False),
    "fp16": Bar(None, 0.999, by_dice=True),
    "int8": Bar(None, 0.98, by_dice=True),
}


def reference(source: Source, images: ImageSet) -> Floats:
    """Probabilities (N, h, w) of the fp32 PyTorch network on ``images``."""
    predict = source.reference()
    scaled = list(images)
    parts = [np.concatenate(scaled[i : i + _BATCH]) for i in range(0, len(scaled), _BATCH)]
    return np.concatenate([predict(part) for part in parts])


def run_artifact(artifact: Artifact, images: Iterable[Floats], size: tuple[int, int]) -> Floats:
    """Probabilities (N, h, w) of an artifact on its own runtime, image by image.

    Raises:
        MissingDependency: its runtime is not installed.
        Unsupported: the runtime refuses the artifact.
    """
    layout = {"name": INPUT, "layout": "NCHW"}
    manifest = {
        "artifact": artifact.path.name,
        "format": artifact.format,
        "runtime": "litert" if artifact.format == "tflite" else "onnxruntime",
        "inputs": [layout],
        "outputs": [{**layout, "name": OUTPUT}],
        "preprocess": {"size": list(size)},
    }
    with board_errors():
        session = runner.open_session(artifact.path.parent, manifest)
        return np.stack([session.run(image)[0, 0] for image in images])


def compare(expected: Floats, found: Floats, threshold: float = THRESHOLD) -> dict[str, Any]:
    """Differences of two sets of probability maps (N, h, w).

    Returns:
        mean_abs_diff, max_abs_diff (None where not finite), mask_agreement (share of equal pixels),
        mask_dice (between the masks, pooled; None without foreground in either), flipped_pixels, pixels,
        foreground_images.
    """
    difference = np.abs(found.astype(np.float64) - expected)
    mean, largest = float(difference.mean()), float(difference.max())
    ours, theirs = found >= threshold, expected >= threshold
    area = int(ours.sum()) + int(theirs.sum())
    flipped = int((ours != theirs).sum())
    return {
        "images": len(expected),
        "mean_abs_diff": mean if np.isfinite(mean) else None,
        "max_abs_diff": largest if np.isfinite(largest) else None,
        "mask_agreement": 1.0 - flipped / ours.size,
        "mask_dice": 2.0 * int((ours & theirs).sum()) / area if area else None,
        "flipped_pixels": flipped,
        "pixels": ours.size,
        "foreground_images": int(theirs.any(axis=(1, 2)).sum()),
    }


def judge(numbers: dict[str, Any], precision: Precision, name: str) -> None:
    """Hold the numbers of ``compare`` against the bar of ``precision``.

    Raises:
        VerificationError: below the bar.
    """
    bar = BARS[precision]
    by_dice = bar.by_dice and numbers["mask_dice"] is not None
    agreement = numbers["mask_dice"] if by_dice else numbers["mask_agreement"]
    mean = numbers["mean_abs_diff"]
    near = mean is not None and (bar.mean_abs_diff is None or mean <= bar.mean_abs_diff)
    if near and agreement >= bar.agreement:
        return
    hint = {
        "fp32": "the export changed the computation: please report it with the model and its run.json",
        "fp16": "this network needs more range than float16 has: export fp32",
        "int8": "more --calibration images, the other --quantizer, or --precision fp16",
    }[precision]
    limit = "" if bar.mean_abs_diff is None else f" (at most {bar.mean_abs_diff:g})"
    raise VerificationError(
        f"{name} does not match fp32 PyTorch on {numbers['images']} images: mask "
        f"{'Dice' if by_dice else 'agreement'} {agreement:.6f} (at least {bar.agreement:g}), mean difference "
        f"{_figure(mean)}{limit}, largest {_figure(numbers['max_abs_diff'])}",
        hint=hint,
    )


def _figure(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2e}"


def verify(
    artifact: Artifact,
    source: Source,
    images: ImageSet,
    precision: Precision,
    *,
    expected: Floats | None = None,
) -> dict[str, Any]:
    """Compare an artifact with the network it was made from and hold it to the bar of its precision.

    Args:
        expected: what ``reference`` gave for the same images, to spare a second run.

    Returns:
        What ``compare`` returns, with the bar and where the images came from.

    Raises:
        VerificationError: below the bar.
    """
    if expected is None:
        expected = reference(source, images)
    numbers = compare(expected, run_artifact(artifact, images, source.size))
    judge(numbers, precision, artifact.path.name)
    bar = BARS[precision]
    return {**numbers, "bar": dataclasses.asdict(bar), "data": images.origin, "images_sha256": images.sha256}
