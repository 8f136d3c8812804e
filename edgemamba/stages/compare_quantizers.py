"""Which quantizer is better for a network, in numbers from the same images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemamba.stages.artifact import Artifact, open_artifact
from edgemamba.stages.plan import QUANTIZERS
from edgemamba.tasks import rules_of
from edgemamba.tasks.segmentation import Segmentation

if TYPE_CHECKING:
    from edgemamba.sources import Source
    from edgemamba.stages.calibration import CalibrationSet, Floats, ImageSet


def compare_quantizers(
    fp32: Artifact, source: Source, calibration: CalibrationSet, images: ImageSet
) -> dict[str, dict[str, Any]]:
    """Quantize a clean fp32 ONNX artifact with each quantizer and score the results.

    Args:
        fp32: of the export stage.
        source: what it was exported from.
        calibration: of the training split.
        images: held out, with their masks (the task is segmentation).

    Returns:
        By quantizer: dice (pooled over all pixels), retention (share of the fp32 network's Dice), mask_dice
        and mask_agreement with fp32 PyTorch, false_alarms (share of images without foreground that get
        some), mean_abs_diff, bytes. ``fp32`` holds the same of the network itself.
    """
    from edgemamba.stages.int8_onnx import to_int8
    from edgemamba.stages.verify import reference, run_artifact

    rules = rules_of(source.info.task)
    expected = reference(source, images)
    base = _scores(expected, images)
    table: dict[str, dict[str, Any]] = {"fp32": {**base, "bytes": fp32.path.stat().st_size}}
    for quantizer in QUANTIZERS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            facts = to_int8(fp32.path, calibration, path, quantizer=quantizer, task=rules.name)
            found = run_artifact(open_artifact(path, "onnx", "int8", facts), images, expected, rules)
        scores = _scores(found, images)
        kept = scores["dice"] / base["dice"] if base["dice"] else None
        numbers = rules.compare(expected, found)
        agreement = {key: numbers[key] for key in ("mask_dice", "mask_agreement", "mean_abs_diff")}
        table[quantizer] = {**scores, "retention": kept, **agreement, "bytes": facts["bytes"]}
    return table


def _scores(probability: Floats, images: ImageSet) -> dict[str, Any]:
    found, true = probability >= Segmentation.threshold, images.truths.astype(bool)
    area = int(found.sum()) + int(true.sum())
    empty = ~true.any(axis=(1, 2))
    alarms = int((found.any(axis=(1, 2)) & empty).sum())
    return {
        "images": len(images),
        "dice": 2 * int((found & true).sum()) / area if area else None,
        "false_alarms": alarms / int(empty.sum()) if empty.any() else None,
    }
