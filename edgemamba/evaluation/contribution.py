"""What the state space contributes: the same net with its recurrence switched off.

In a badly initialised or briefly trained net the recurrence is dormant: switching it off changes almost no
pixel. Such a net says nothing about how well an export or a quantizer treats the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgemamba.console import Console
from edgemamba.evaluation.compare import evaluate_pair

if TYPE_CHECKING:
    from torch import nn

    from edgemamba.data.base import Dataset
    from edgemamba.evaluation.evaluate import Floats

DORMANT_MASK_DICE = 0.999


def ssm_contribution(
    model: nn.Module,
    dataset: Dataset,
    indices: Sequence[int],
    size: tuple[int, int],
    console: Console,
    threshold: float = 0.5,
    *,
    split: str,
    device: str = "cpu",
) -> dict[str, Any]:
    """Compare a net with itself without recurrence (y = D u in every scan), on the slices ``indices``.

    Returns:
        JSON: how many scans there are, Dice with and without by protocol, agreement of the masks, ``dormant``
        when the masks agree to a Dice of 0.999, and for a net without a scan only a reason.
    """
    from edgemamba.models.predictor import torch_predictor
    from edgemamba.ssm import scan_calls, use_form

    scans = len(scan_calls(model, size))
    if not scans:
        return {"scans": 0, "left_out": "the net has no state space"}
    whole = torch_predictor(model, device)

    def without(images: Floats) -> Floats:
        with use_form(model, "off"):
            return whole(images)

    pair = evaluate_pair(whole, without, dataset, indices, size, console, threshold, split=split)
    found = pair.document()
    return {
        "scans": scans,
        "slices": found["slices"],
        "dice": {
            name: {"with": row["reference"], "without": row["candidate"]}
            for name, row in found["protocols"].items()
            if "left_out" not in row
        },
        "mask_agreement": found["mask_agreement"],
        "probability": found["probability"],
        "dormant": pair.mask_dice >= DORMANT_MASK_DICE,
    }
