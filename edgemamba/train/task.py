"""What training asks of a task. A task is one module with a subclass, and its row in ``tasks``."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from edgemamba.data import Arrays, Sample
from edgemamba.models import Network
from edgemamba.registry import ModelInfo, Task
from edgemamba.train.config import TrainConfig
from edgemamba.train.recipes import Recipe

# Tensors of a set on the device, equal in their first axis: a sample is one row of each.
Packed: TypeAlias = tuple[Tensor, ...]
# From drawn samples to network input float32 (B, 3, H, W) and target.
Prepare: TypeAlias = Callable[[Packed], tuple[Tensor, Tensor]]
Scores: TypeAlias = dict[str, float | None]


@dataclasses.dataclass(frozen=True)
class Validation:
    """What one pass over the held-out samples gave.

    Attributes:
        loss: mean over samples of the loss of their batch.
        scores: by column of the run's table.
        samples: tensors of one entry a sample, which choose the pictures.
    """

    loss: float
    scores: Scores
    samples: tuple[Tensor, ...]


class TrainTask(abc.ABC):
    """How a task trains.

    Args:
        labels: names of the classes; none where there are masks.

    Attributes:
        name: of the task.
        unit: what a sample is called, plural.
        score: what the scores are called.
        trained: column of the training's score.
        headline: column that says which epoch is best; ``best_`` and it is the record's field.
        lines: label and column of each line of the chart of scores.
        chart: its title.
        counts: how many whole numbers ``count`` gives.
        measures: how many numbers ``measure`` gives a sample.
        validation_batch: samples a forward pass, by device.
    """

    name: ClassVar[Task]
    unit: ClassVar[str]
    score: ClassVar[str]
    trained: ClassVar[str]
    headline: ClassVar[str]
    lines: ClassVar[Sequence[tuple[str, str]]]
    chart: ClassVar[str]
    counts: ClassVar[int]
    measures: ClassVar[int]
    validation_batch: ClassVar[Mapping[str, int]]

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.labels = list(labels)

    @abc.abstractmethod
    def recipe(self, config: TrainConfig, info: ModelInfo, *, batch: int, steps: int) -> Recipe:
        """The recipe that ``config`` names, resolved for so many steps of ``batch``."""

    @abc.abstractmethod
    def build(self, config: TrainConfig) -> Network:
        """The network for this data, with fresh weights of torch's present seed."""

    @abc.abstractmethod
    def pack(self, arrays: Arrays) -> Packed:
        """Put a part of the data together, on the CPU."""

    @abc.abstractmethod
    def favoured(self, arrays: Arrays, config: TrainConfig) -> NDArray[np.bool_]:
        """Which samples of the training part the recipe may draw more often, (N).

        Raises:
            InputError: nothing can be learned from this part.
        """

    @abc.abstractmethod
    def prepare(self, recipe: Recipe, packed: Packed, generator: Generator) -> Prepare:
        """Augmentation of batches that are drawn from ``packed``, as tensor code without a branch on data."""

    @abc.abstractmethod
    def losses(self, learner: Any, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is minimised, the part of it that the network's own output has, and that output (logits, float32).

        Args:
            learner: a ``Learner``.
            images: (B, 3, H, W).
            target: see ``prepare``.
        """

    @abc.abstractmethod
    def count(self, logits: Tensor, target: Tensor) -> Tensor:
        """Whole numbers of one batch that are added up over an epoch, int64 (counts)."""

    @abc.abstractmethod
    def trained_score(self, counts: Sequence[int]) -> float | None:
        """The training's score of an epoch's ``counts``."""

    @abc.abstractmethod
    def measure(self, model: nn.Module, part: Packed, recipe: Recipe, layout: torch.memory_format) -> Tensor:
        """What one batch of held-out samples gives, a row for each, (B, measures); the first number is its loss."""

    @abc.abstractmethod
    def summarise(self, measured: Tensor) -> Validation:
        """The scores of all rows of ``measure``, float64 (N, measures) on the CPU."""

    @abc.abstractmethod
    def save_samples(
        self, folder: Path, model: nn.Module, packed: Packed, samples: Sequence[Sample], seen: Validation
    ) -> None:
        """Draw some held-out samples with truth and prediction."""
