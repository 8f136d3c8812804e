"""Does an artifact compute what the trained network computes? Every value of its output is compared on at least 100
images.

The artifact runs through the Bundle's own session (``board.runner``), as it will on the board; the reference is the
fp32 PyTorch network. What is compared and how good is good enough is the task's (``tasks``).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemamba.board import runner
from edgemamba.bundle.session import board_errors
from edgemamba.errors import VerificationError
from edgemamba.presets import Precision
from edgemamba.tasks import TaskRules, rules_of

if TYPE_CHECKING:
    from edgemamba.sources import Source
    from edgemamba.stages.artifact import Artifact
    from edgemamba.stages.calibration import Floats, ImageSet

INPUT = "image"
_HINTS: dict[Precision, str] = {
    "fp32": "the export changed the computation: please report it with the model and its run.json",
    "fp16": "this network needs more range than float16 has: export fp32",
    "int8": "more --calibration images, or --precision fp16",
}


def reference(source: Source, images: ImageSet) -> Floats:
    """Outputs (N, ...) of the fp32 PyTorch network on ``images``."""
    predict = source.reference()
    batch = rules_of(source.info.task).batch
    scaled = list(images)
    parts = [np.concatenate(scaled[i : i + batch]) for i in range(0, len(scaled), batch)]
    return np.concatenate([predict(part) for part in parts])


def run_artifact(artifact: Artifact, images: ImageSet, like: Floats, rules: TaskRules) -> Floats:
    """Outputs (N, ...) of an artifact on its own runtime, image by image.

    Args:
        artifact: what runs.
        images: its inputs.
        like: what the reference gives: outputs (M, ...) of the shape that is expected.
        rules: of the network's task.

    Raises:
        MissingDependency: its runtime is not installed.
        Unsupported: the runtime refuses the artifact, or it gives another shape.
    """
    layout, shape = next(iter(rules.layouts(like.shape[1:]).items()))
    manifest = {
        "artifact": artifact.path.name,
        "format": artifact.format,
        "runtime": "litert" if artifact.format == "tflite" else "onnxruntime",
        "inputs": [{"name": INPUT, "layout": "NCHW", "shape": [1, *images.images.shape[1:]]}],
        "outputs": [{"name": rules.output, "layout": layout, "shape": shape}],
        "preprocess": {"size": list(images.images.shape[2:])},
    }
    with board_errors():
        session = runner.open_session(artifact.path.parent, manifest)
        return np.stack([rules.value(session.run(image)) for image in images])


def judge(numbers: dict[str, Any], precision: Precision, name: str, rules: TaskRules) -> None:
    """Hold the numbers of ``rules.compare`` against the bar of ``precision``.

    Raises:
        VerificationError: below the bar.
    """
    fault = rules.fault(numbers, precision)
    if fault:
        raise VerificationError(
            f"{name} does not match fp32 PyTorch on {numbers['images']} images: {fault}", hint=_HINTS[precision]
        )


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
        What the task's ``compare`` returns, with the bar and where the images came from.

    Raises:
        VerificationError: below the bar.
    """
    if expected is None:
        expected = reference(source, images)
    rules = rules_of(source.info.task)
    numbers = rules.compare(expected, run_artifact(artifact, images, expected, rules))
    judge(numbers, precision, artifact.path.name, rules)
    bar = dataclasses.asdict(rules.bars[precision])
    return {**numbers, "bar": bar, "data": images.origin, "images_sha256": images.sha256}
