"""Classification: an output is the probability of each class (K,), and what counts is the first one.

Means over all classes hide a change (99 of 100 probabilities are near zero), so precisions below fp32 are judged by
the total variation distance, half the sum of |differences|: 0 for equal distributions, 1 for disjoint ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgemamba.errors import InputError
from edgemamba.presets import Precision
from edgemamba.tasks.base import Arrays, Bar, Floats, TaskRules, differences, figure, finite

if TYPE_CHECKING:
    from edgemamba.records import Manifest

TOP = 5
_GOLDEN_PICTURES = 4
_FEW = 10


class Classification(TaskRules):
    """Two classes that the reference itself holds for equally likely are a tie: either may come first."""

    name = "classification"
    meaning = "probability of each class, sum 1"
    pipeline_tag = "image-classification"
    result = "best classes"
    score = "top-1 accuracy"
    candidates = 10
    limits = (
        "Not validated on other pictures than those of the training data.",
        "It names one of its classes for every picture, also for one that shows none of them.",
        "The probabilities are the network's own; how well they are calibrated was not measured.",
    )
    # fp32: mean |difference| over all classes, of fewer than ten the same sum over them; below: mean total variation.
    # Agreement: share of equal first classes.
    bars: ClassVar[Mapping[Precision, Bar]] = {"fp32": Bar(1e-6, 1.0), "fp16": Bar(0.01, 0.99), "int8": Bar(0.1, 0.9)}
    # Up to this difference of the reference's probabilities two classes are a tie.
    ties: ClassVar[Mapping[Precision, float]] = {"fp32": 1e-5, "fp16": 1e-3, "int8": 1e-2}
    # Mean total variation, least share of equal first classes; the pictures are chosen for a clear first class.
    golden: ClassVar[Mapping[Precision, tuple[float, float]]] = {
        "fp32": (1e-4, 1.0),
        "fp16": (0.03, 1.0),
        "int8": (0.25, 0.5),
    }

    def layouts(self, shape: Sequence[int]) -> dict[str, list[int]]:
        """One row."""
        return {"NK": [1, *shape]}

    def compare(self, expected: Floats, found: Floats) -> dict[str, Any]:
        """Differences of probabilities (n, K).

        Returns:
            mean_abs_diff, max_abs_diff, mean_variation, top1_agreement, top5_agreement (mean share of the five best
            classes that both name), flip_margins (for each image whose first class changes, by how much the
            reference prefers its own), classes.
        """
        first, ours = expected.argmax(axis=1), found.argmax(axis=1)
        rows = np.flatnonzero(first != ours)
        margins = expected[rows, first[rows]].astype(np.float64) - expected[rows, ours[rows]]
        best = min(TOP, expected.shape[1])
        leaders = [np.argsort(-side, axis=1, kind="stable")[:, :best] for side in (expected, found)]
        shared = [len(set(a) & set(b)) / best for a, b in zip(*(side.tolist() for side in leaders), strict=True)]
        variation = 0.5 * np.abs(found.astype(np.float64) - expected).sum(axis=1)
        return {
            **differences(expected, found),
            "mean_variation": finite(float(variation.mean())),
            "top1_agreement": 1.0 - len(rows) / len(expected),
            "top5_agreement": float(np.mean(shared)),
            "flip_margins": [float(margin) for margin in margins],
            "classes": int(expected.shape[1]),
        }

    def fault(self, numbers: dict[str, Any], precision: Precision) -> str:
        """First classes that change without a tie, or probabilities that are off."""
        bar, tie = self.bars[precision], self.ties[precision]
        flips = sum(margin > tie for margin in numbers["flip_margins"])
        agreement = 1.0 - flips / numbers["images"]
        name = "mean_abs_diff" if precision == "fp32" else "mean_variation"
        mean = numbers[name]
        assert bar.mean_diff is not None
        # With few classes most probabilities are far from 0, and each is rounded: fp32 PyTorch itself is 4e-7 from
        # float64 on a ResNet-9 of four classes.
        few = max(1.0, _FEW / numbers["classes"]) if precision == "fp32" else 1.0
        limit = few * bar.mean_diff
        if mean is not None and mean <= limit and agreement >= bar.agreement:
            return ""
        words = "mean difference" if precision == "fp32" else "mean total variation"
        return (
            f"top-1 agreement {agreement:.4f} with ties within {tie:g} (at least {bar.agreement:g}), {words} "
            f"{figure(mean)} (at most {limit:.3g}), largest difference {figure(numbers['max_abs_diff'])}"
        )

    def told(self, numbers: dict[str, Any]) -> str:
        """Share of equal first classes and of shared five best."""
        return f"first classes {numbers['top1_agreement']:.2%} equal, five best {numbers['top5_agreement']:.2%}"

    def golden_limits(self, precision: Precision, expected: Floats) -> tuple[float, float]:
        """The total variation as a mean over the classes."""
        variation, agreement = self.golden[precision]
        return 2.0 * variation / expected.shape[1], agreement

    def golden_choice(self, expected: Floats) -> list[int]:
        """The pictures with the clearest first class."""
        ranked = np.sort(expected, axis=1)
        margins = ranked[:, -1] - ranked[:, -2] if expected.shape[1] > 1 else ranked[:, -1]
        clearest = np.argsort(-margins, kind="stable")[:_GOLDEN_PICTURES]
        return sorted(int(index) for index in clearest)

    def golden_arrays(self, expected: Floats) -> Arrays:
        """Every probability."""
        return {"output": np.ascontiguousarray(expected, np.float32), "stride": np.asarray(1)}

    def pick(self, order: Sequence[int], truth: Callable[[int], Any], count: int) -> list[int]:
        """The same number of every class, as far as there are so many; classes in turn."""
        if not order:
            raise InputError("there are no training images to calibrate on", hint="use --precision fp16")
        by_class: dict[int, list[int]] = {}
        for index in order:
            by_class.setdefault(int(truth(index)), []).append(index)
        rows = [by_class[label] for label in sorted(by_class)]
        turns = (row[turn] for turn in range(max(map(len, rows))) for row in rows if turn < len(row))
        return [index for index, _ in zip(turns, range(count), strict=False)]

    def describe(self, truths: npt.NDArray[Any]) -> dict[str, int]:
        """How many classes are among them."""
        return {"classes": len(np.unique(truths))}

    def output_text(self, manifest: Manifest) -> str:
        """How many classes, the first ones by name."""
        some = ", ".join(manifest.labels[:10]) + (", ..." if len(manifest.labels) > 10 else "")
        count = manifest.outputs[0].shape[-1]
        return f"the probability of each of {count} classes" + (f" ({some})." if some else ".")

    def predict_text(self, manifest: Manifest) -> tuple[str, str]:
        """The table."""
        del manifest
        return (
            "python predict.py pictures/*.png -o classes --format json",
            f"for each the {TOP} best classes with their probability, and a table of them all (`classes.csv`)",
        )
