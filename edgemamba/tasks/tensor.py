"""Another project's network: an output is just numbers (any shape), so differences are held against their size.

The scale of an output is its root mean square over all images.
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

# Values of an output that the golden file keeps of each picture.
_GOLDEN_VALUES = 65_536


class TensorTask(TaskRules):
    """Its reference takes one image at a time: whether the network takes more is not known."""

    name = "tensor"
    meaning = "the network's own output"
    pipeline_tag = "image-feature-extraction"
    result = "output tensor"
    score = ""
    batch = 1
    limits = ("What its output means is not known to edgemamba, nor how accurate it is.",)
    # Mean |difference| over the scale, mean cosine of the outputs.
    bars: ClassVar[Mapping[Precision, Bar]] = {
        "fp32": Bar(1e-5, 0.999999),
        "fp16": Bar(0.01, 0.9999),
        "int8": Bar(0.2, 0.98),
    }
    # A single value of fp32 that is off by more than this share of the scale is a wrong computation, not rounding.
    largest = 1e-2
    golden: ClassVar[Mapping[Precision, tuple[float, float]]] = {
        "fp32": (1e-4, 0.9999),
        "fp16": (0.03, 0.999),
        "int8": (0.4, 0.9),
    }

    def layouts(self, shape: Sequence[int]) -> dict[str, list[int]]:
        """As the network gives it."""
        return {"plain": list(shape)}

    def value(self, y: Floats) -> Floats:
        """All of it: the first axis need not be the batch."""
        return y

    def compare(self, expected: Floats, found: Floats) -> dict[str, Any]:
        """Differences of outputs (n, ...).

        Returns:
            mean_abs_diff, max_abs_diff, scale, mean_rel_diff and max_rel_diff (over the scale), cosine (mean over the
            images), least_cosine.
        """
        numbers = differences(expected, found)
        scale = scale_of(expected)
        cosines = [cosine(a, b) for a, b in zip(expected, found, strict=True)]
        relative = {
            f"{name}_rel_diff": None if (value := numbers[f"{name}_abs_diff"]) is None else value / scale
            for name in ("mean", "max")
        }
        return {
            **numbers,
            "scale": scale,
            **relative,
            "cosine": finite(float(np.mean(cosines))),
            "least_cosine": finite(min(cosines)),
        }

    def fault(self, numbers: dict[str, Any], precision: Precision) -> str:
        """Another direction, or values that are off."""
        bar = self.bars[precision]
        mean, largest, same = numbers["mean_rel_diff"], numbers["max_rel_diff"], numbers["cosine"]
        known = mean is not None and same is not None
        exact = precision != "fp32" or (largest is not None and largest <= self.largest)
        if known and (bar.mean_diff is None or mean <= bar.mean_diff) and same >= bar.agreement and exact:
            return ""
        limit = f" (at most {self.largest:g})" if precision == "fp32" else ""
        shown = "not finite" if same is None else f"{same:.6f}"
        return (
            f"cosine {shown} (at least {bar.agreement:g}), mean difference {figure(mean)} of the output's scale (at "
            f"most {bar.mean_diff:g}), largest {figure(largest)}{limit}"
        )

    def told(self, numbers: dict[str, Any]) -> str:
        """Cosine and the difference against the scale."""
        return f"cosine {numbers['cosine']:.6f}, {figure(numbers['mean_rel_diff'])} of the scale {numbers['scale']:.3g}"

    def golden_limits(self, precision: Precision, expected: Floats) -> tuple[float, float]:
        """The share of the scale as an absolute number."""
        relative, agreement = self.golden[precision]
        return relative * scale_of(expected), agreement

    def golden_arrays(self, expected: Floats) -> Arrays:
        """The values, of large outputs every s-th."""
        flat = expected.reshape(len(expected), -1)
        stride = -(-flat.shape[1] // _GOLDEN_VALUES)
        return {"output": np.ascontiguousarray(flat[:, ::stride], np.float32), "stride": np.asarray(stride)}

    def pick(self, order: Sequence[int], truth: Callable[[int], Any], count: int) -> list[int]:
        """The first of them: nothing is known that would tell them apart."""
        del truth
        if not order:
            raise InputError("there are no images to calibrate on", hint="--images DIR, or --precision fp16")
        return list(order[:count])

    def describe(self, truths: npt.NDArray[Any]) -> dict[str, int]:
        """Nothing is known."""
        del truths
        return {}

    def output_text(self, manifest: Manifest) -> str:
        """Its shape."""
        return (
            f"{'x'.join(map(str, manifest.outputs[0].shape))} numbers, whose meaning only the network's authors know."
        )

    def predict_text(self, manifest: Manifest) -> tuple[str, str]:
        """Arrays in and out."""
        channels, height, width = manifest.input_channels, *manifest.preprocess.size
        return (
            "python predict.py inputs/*.npy -o outputs",
            f"or .npy files of float32 {channels}x{height}x{width}, which are taken as they are; for each the output "
            "as `.npy`. Pictures become values from 0 to 1; a network that wants others takes `.npy`",
        )


def scale_of(values: Floats) -> float:
    """Root mean square; 1 where all values are zero."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) or 1.0


def cosine(a: Floats, b: Floats) -> float:
    """Cosine of the angle between two outputs; of two that are all zero 1."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    product = float(np.sqrt(np.dot(x, x) * np.dot(y, y)))
    return float(np.dot(x, y)) / product if product else float(np.array_equal(x, y))
