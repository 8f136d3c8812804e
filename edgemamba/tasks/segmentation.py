"""Segmentation: an output is the probability of each pixel (h, w), and what counts is the mask.

Dice alone is no gate: a quantized net can keep its pooled Dice while its masks move, so the masks themselves are
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgemamba.board import images
from edgemamba.errors import InputError
from edgemamba.presets import Precision
from edgemamba.tasks.base import Arrays, Bar, Floats, TaskRules, differences, figure

if TYPE_CHECKING:
    from edgemamba.records import Manifest

_STRIDE = 4


class Segmentation(TaskRules):
    """A calibration set without foreground silences a network: averaged ranges of empty slices clip every lesion, and
    the int8 masks come out empty without an error. So at least half of the set shows foreground, and the float
    network must find foreground in it."""

    name = "segmentation"
    meaning = "probability of lesion, 0 to 1"
    pipeline_tag = "image-segmentation"
    result = "mask"
    score = "Dice"
    threshold: ClassVar[float] = 0.5
    limits = (
        "Not validated on other scanners, sequences, ages or diseases than those of the training data.",
        "It sees one slice at a time, and three channels in the order of the training data.",
        "A small change of Dice can be a missed lesion: look at missed lesions and false alarms too.",
    )
    # Agreement is the Dice between the masks, pooled over all images; of fp32 the share of equal pixels.
    bars: ClassVar[Mapping[Precision, Bar]] = {
        "fp32": Bar(1e-6, 0.99999),
        "fp16": Bar(None, 0.999),
        "int8": Bar(None, 0.98),
    }
    # Largest mean |difference| of the probability, least share of equal mask pixels.
    golden: ClassVar[Mapping[Precision, tuple[float, float]]] = {
        "fp32": (1e-5, 0.9999),
        "fp16": (2e-3, 0.998),
        "int8": (2e-2, 0.98),
    }

    def layouts(self, shape: Sequence[int]) -> dict[str, list[int]]:
        """One channel, first or last."""
        height, width = shape
        return {"NCHW": [1, 1, height, width], "NHWC": [1, height, width, 1]}

    def value(self, y: Floats) -> Floats:
        """Without the channel."""
        found: Floats = y[0, 0]
        return found

    def compare(self, expected: Floats, found: Floats) -> dict[str, Any]:
        """Differences of probability maps (n, h, w).

        Returns:
            mean_abs_diff, max_abs_diff, mask_agreement (share of equal pixels), mask_dice (between the masks,
            pooled; None without foreground in either), flipped_pixels, pixels, foreground_images.
        """
        ours, theirs = found >= self.threshold, expected >= self.threshold
        area = int(ours.sum()) + int(theirs.sum())
        flipped = int((ours != theirs).sum())
        return {
            **differences(expected, found),
            "mask_agreement": 1.0 - flipped / ours.size,
            "mask_dice": 2.0 * int((ours & theirs).sum()) / area if area else None,
            "flipped_pixels": flipped,
            "pixels": ours.size,
            "foreground_images": int(theirs.any(axis=(1, 2)).sum()),
        }

    def fault(self, numbers: dict[str, Any], precision: Precision) -> str:
        """Masks below the bar, or probabilities that are off."""
        bar = self.bars[precision]
        by_dice = precision != "fp32" and numbers["mask_dice"] is not None
        agreement = numbers["mask_dice"] if by_dice else numbers["mask_agreement"]
        mean = numbers["mean_abs_diff"]
        if mean is not None and (bar.mean_diff is None or mean <= bar.mean_diff) and agreement >= bar.agreement:
            return ""
        limit = "" if bar.mean_diff is None else f" (at most {bar.mean_diff:g})"
        return (
            f"mask {'Dice' if by_dice else 'agreement'} {agreement:.6f} (at least {bar.agreement:g}), mean difference "
            f"{figure(mean)}{limit}, largest {figure(numbers['max_abs_diff'])}"
        )

    def told(self, numbers: dict[str, Any]) -> str:
        """Share of equal mask pixels."""
        return f"masks {numbers['mask_agreement']:.5%} equal"

    def golden_limits(self, precision: Precision, expected: Floats) -> tuple[float, float]:
        """The same for every network."""
        del expected
        return self.golden[precision]

    def golden_arrays(self, expected: Floats) -> Arrays:
        """The probability at every fourth pixel, and the whole masks as bits."""
        masks = np.stack([images.to_mask(one, self.threshold, one.shape) for one in expected])
        return {
            "probability": np.ascontiguousarray(expected[:, ::_STRIDE, ::_STRIDE]),
            "mask": np.packbits(masks.reshape(len(masks), -1), axis=1),
            "stride": np.asarray(_STRIDE),
        }

    def pick(self, order: Sequence[int], truth: Callable[[int], Any], count: int) -> list[int]:
        """Half with foreground, half without. Where one kind is too rare the other fills up, but never to less than
        half with foreground."""
        with_foreground: list[int] = []
        without: list[int] = []
        for index in order:
            if len(with_foreground) >= (count + 1) // 2 and len(with_foreground) + len(without) >= count:
                break
            (with_foreground if truth(index).any() else without).append(index)
        if not with_foreground:
            raise InputError(
                f"none of {len(order)} training images has foreground: int8 would clip lesions",
                hint="calibrate on data with lesions, or use --precision fp16",
            )
        empty = min(len(without), count // 2, len(with_foreground))
        shown = with_foreground[: count - empty]
        # The moving average of LiteRT's calibration is seeded by the first image: it must not be an empty one.
        spread = {len(shown) * i // max(1, empty): index for i, index in enumerate(without[:empty])}
        chosen = []
        for position, index in enumerate(shown):
            chosen.append(index)
            if position in spread:
                chosen.append(spread[position])
        return chosen

    def describe(self, truths: npt.NDArray[Any]) -> dict[str, int]:
        """How many show foreground."""
        return {"with_foreground": int(truths.any(axis=(1, 2)).sum())}

    def silent(self, largest: float) -> str:
        """No foreground found: no calibrated range could let it through."""
        if largest >= self.threshold:
            return ""
        return f"the float network finds no foreground: largest probability {largest:.3f}"

    def output_text(self, manifest: Manifest) -> str:
        """The probability and the threshold."""
        return f"the probability of lesion for each pixel; the mask starts at {manifest.threshold}."

    def predict_text(self, manifest: Manifest) -> tuple[str, str]:
        """Threshold, mask and overlay."""
        return (
            f"python predict.py scans/*.png -o masks --threshold {manifest.threshold}",
            "for each a mask (0 and 255, in the image's own size) and an overlay",
        )
