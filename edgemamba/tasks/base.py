"""What every task has to say."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgemamba.presets import Precision
from edgemamba.registry import OUTPUTS, Task

if TYPE_CHECKING:
    from edgemamba.records import Manifest

Floats = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Bar:
    """What an artifact of one precision must reach; what each number means is the task's.

    Attributes:
        mean_diff: largest mean difference; None: not judged.
        agreement: least agreement with the reference.
    """

    mean_diff: float | None
    agreement: float


class TaskRules(abc.ABC):
    """The rules of one task.

    An output is what ``Source.reference`` gives for one image; several of them are stacked (n, ...).

    Attributes:
        name: of the task.
        meaning: of the output tensor.
        pipeline_tag: what model hubs call the task.
        result: what an image becomes, for people.
        score: what accuracy is measured in; empty where it is not known.
        batch: how many images the reference takes at once.
        limits: what the model card warns of.
        threshold: segmentation: probability from which a pixel belongs to the mask.
        candidates: how many pictures ``golden_choice`` chooses from.
    """

    name: ClassVar[Task]
    meaning: ClassVar[str]
    pipeline_tag: ClassVar[str]
    result: ClassVar[str]
    score: ClassVar[str]
    batch: ClassVar[int] = 8
    limits: ClassVar[tuple[str, ...]] = ()
    threshold: ClassVar[float | None] = None
    candidates: ClassVar[int] = 2
    bars: ClassVar[Mapping[Precision, Bar]]

    @property
    def output(self) -> str:
        """Name of the output tensor."""
        return OUTPUTS[self.name]

    @abc.abstractmethod
    def layouts(self, shape: Sequence[int]) -> dict[str, list[int]]:
        """How an artifact may store one output of ``shape``: layout and shape of the tensor, batch axis included."""

    def value(self, y: Floats) -> Floats:
        """One output of what ``Session.run`` gives for one image."""
        found: Floats = y[0]
        return found

    @abc.abstractmethod
    def compare(self, expected: Floats, found: Floats) -> dict[str, Any]:
        """Differences of two stacks of outputs, as strict JSON: ``images``, ``mean_abs_diff`` and ``max_abs_diff``
        (None where not finite), and what the task looks at."""

    @abc.abstractmethod
    def fault(self, numbers: dict[str, Any], precision: Precision) -> str:
        """Why the numbers of ``compare`` are below the bar; empty when they are not."""

    @abc.abstractmethod
    def told(self, numbers: dict[str, Any]) -> str:
        """The agreement in ``numbers`` in a few words."""

    @abc.abstractmethod
    def golden_limits(self, precision: Precision, expected: Floats) -> tuple[float, float]:
        """Largest mean |difference| and least agreement on the golden pictures; see ``board.outputs``."""

    def golden_choice(self, expected: Floats) -> list[int]:
        """Which of the candidates for golden pictures are taken, by their outputs."""
        return list(range(len(expected)))

    @abc.abstractmethod
    def golden_arrays(self, expected: Floats) -> Arrays:
        """Arrays of the golden file besides the pictures; ``board.outputs`` reads them."""

    @abc.abstractmethod
    def pick(self, order: Sequence[int], truth: Callable[[int], Any], count: int) -> list[int]:
        """Samples that calibrate.

        Args:
            order: positions in the data, shuffled.
            truth: what is known of a sample: mask (h, w), or class.
            count: how many are wanted.

        Raises:
            InputError: these samples cannot calibrate.
        """

    @abc.abstractmethod
    def describe(self, truths: npt.NDArray[Any]) -> dict[str, int]:
        """What the manifest says about a set of images, from what is known of them."""

    def silent(self, largest: float) -> str:
        """Why a float network whose largest output on the calibration images is this cannot be quantized; or empty."""
        del largest
        return ""

    @abc.abstractmethod
    def output_text(self, manifest: Manifest) -> str:
        """A sentence of the model card: what the output is."""

    @abc.abstractmethod
    def predict_text(self, manifest: Manifest) -> tuple[str, str]:
        """Of the Bundle's README: a second example of ``predict.py``, and what each image gives."""


def differences(expected: Floats, found: Floats) -> dict[str, Any]:
    """images, mean_abs_diff and max_abs_diff of two stacks of outputs."""
    difference = np.abs(found.astype(np.float64) - expected)
    return {
        "images": len(expected),
        "mean_abs_diff": finite(float(difference.mean())),
        "max_abs_diff": finite(float(difference.max())),
    }


def finite(value: float) -> float | None:
    """The number, or None where JSON has no word for it."""
    return value if np.isfinite(value) else None


def figure(value: float | None) -> str:
    """A small number for people."""
    return "not finite" if value is None else f"{value:.2e}"
