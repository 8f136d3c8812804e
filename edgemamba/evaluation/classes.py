"""Score classifiers on images of a data set: top-1, top-5 and the mean over classes with intervals, every class, the
most frequent and the surest mistakes; and how much of a reference's accuracy another artifact of it keeps.

A predictor is any function from images (n, 3, h, w) float32 in [0, 1] to probabilities (n, K) float32.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemamba.console import Console
from edgemamba.errors import InputError, VerificationError
from edgemamba.evaluation.bootstrap import CONFIDENCE, RESAMPLES
from edgemamba.evaluation.evaluate import read_batches, refuse_nothing
from edgemamba.evaluation.shares import Hits, Share, balanced, ratio, share

if TYPE_CHECKING:
    from edgemamba.data.base import Dataset

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Predict = Callable[[Floats], Floats]

TOP = 5
_LISTED = 10


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a classifier says about images.

    Attributes:
        dataset: name of the data set.
        split: of the data set.
        size: network input height and width, pixels.
        labels: names of the classes.
        indices: positions in the data set, in the order of everything below.
        ids: of the samples.
        truth: class of each image (N,).
        best: the best classes (N, up to 5), best first.
        probability: of the first class (N,).
    """

    dataset: str
    split: str
    size: tuple[int, int]
    labels: tuple[str, ...]
    indices: tuple[int, ...]
    ids: tuple[str, ...]
    truth: Integers
    best: Integers
    probability: Floats

    @property
    def first(self) -> Integers:
        """The first class of each image."""
        found: Integers = self.best[:, 0]
        return found

    def right(self, top: int = 1) -> Hits:
        """Whether the true class is among the ``top`` best."""
        found: Hits = (self.best[:, :top] == self.truth[:, None]).any(axis=1)
        return found

    def accuracy(self, top: int = 1) -> Share:
        """Share of images whose true class is among the ``top`` best."""
        return share(self.right(top))

    def balanced(self, *, seed: int = 0) -> Share:
        """Mean over the classes of each one's accuracy."""
        return balanced(self.right(), self.truth, seed=seed)

    def surest_mistakes(self, count: int = _LISTED) -> list[int]:
        """Rows of the images with a wrong first class, the most probable first."""
        rows = np.flatnonzero(~self.right())
        return [int(row) for row in rows[np.argsort(-self.probability[rows], kind="stable")][:count]]

    def per_class(self) -> list[dict[str, Any]]:
        """A row a class that occurs, least accurate first."""
        right = self.right()
        rows = [
            {"class": index, "label": label, "images": int(own.sum()), "top1": float(right[own].mean())}
            for index, label in enumerate(self.labels)
            if (own := self.truth == index).any()
        ]
        return sorted(rows, key=lambda row: (row["top1"], row["class"]))

    def mistakes(self, count: int = _LISTED) -> list[dict[str, Any]]:
        """The most frequent pairs of true and first class that differ."""
        wrong = Counter(
            (int(true), int(said)) for true, said in zip(self.truth, self.first, strict=True) if true != said
        )
        ranked = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:count]
        return [
            {"truth": self.labels[true], "first": self.labels[said], "images": number}
            for (true, said), number in ranked
        ]

    def document(self, *, seed: int = 0) -> dict[str, Any]:
        """Everything but the rows, as strict JSON; ``seed`` of the bootstrap."""
        return {
            "schema": "edgemamba.classification/1",
            "task": "classification",
            "dataset": self.dataset,
            "split": self.split,
            "size": list(self.size),
            "images": len(self.ids),
            "classes": len(self.labels),
            "top1": self.accuracy().document(),
            f"top{TOP}": self.accuracy(TOP).document(),
            "balanced": self.balanced(seed=seed).document(),
            "interval": {"confidence": CONFIDENCE, "unit": "image", "resamples": RESAMPLES, "seed": seed},
            "per_class": self.per_class(),
            "mistakes": self.mistakes(),
            "surest_mistakes": [
                {
                    "id": self.ids[row],
                    "truth": self.labels[self.truth[row]],
                    "first": self.labels[self.first[row]],
                    "probability": float(self.probability[row]),
                }
                for row in self.surest_mistakes()
            ],
        }

    def per_image_csv(self) -> str:
        """A line an image: id, true class, the five best, probability of the first."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", "truth", *(f"best_{rank}" for rank in range(1, self.best.shape[1] + 1)), "probability"])
        for id, true, best, probability in zip(self.ids, self.truth, self.best, self.probability, strict=True):
            names = [self.labels[index] for index in best]
            writer.writerow([id, self.labels[true], *names, f"{probability:.6g}"])
        return stream.getvalue()


@dataclasses.dataclass(frozen=True)
class ClassComparison:
    """An artifact beside its reference on the same images.

    Attributes:
        reference, candidate: what each says.
        variation: total variation distance of the probabilities of each image, 0 to 1.
        mean_abs, max_abs: |difference of the probabilities| over all images and classes.
    """

    reference: Answers
    candidate: Answers
    variation: Floats
    mean_abs: float
    max_abs: float

    def retention(self, top: int = 1, *, seed: int = 0) -> Share:
        """Candidate's accuracy / reference's, paired over images."""
        return ratio(self.candidate.right(top), self.reference.right(top), seed=seed)

    def agreement(self) -> Share:
        """Share of images with the same first class."""
        return share(self.reference.first == self.candidate.first)

    def lost(self) -> Hits:
        """Images that the reference has right and the candidate has not."""
        return self.reference.right() & ~self.candidate.right()

    def gained(self) -> Hits:
        """Images that the candidate has right and the reference has not."""
        return ~self.reference.right() & self.candidate.right()

    def largest_changes(self, count: int) -> list[int]:
        """Rows of the images whose first class changes, largest total variation first."""
        rows = np.flatnonzero(self.reference.first != self.candidate.first)
        return [int(row) for row in rows[np.argsort(-self.variation[rows], kind="stable")][:count]]

    def document(self) -> dict[str, Any]:
        """Everything but the rows, as strict JSON."""
        sides = {"reference": self.reference, "candidate": self.candidate}
        return {
            "schema": "edgemamba.class-retention/1",
            "dataset": self.reference.dataset,
            "split": self.reference.split,
            "images": len(self.reference.ids),
            "interval": {"confidence": CONFIDENCE, "unit": "image", "resamples": RESAMPLES},
            **{
                f"top{top}": {
                    **{name: side.accuracy(top).document() for name, side in sides.items()},
                    "retention_percent": self.retention(top).document(100.0),
                }
                for top in (1, TOP)
            },
            "agreement": self.agreement().document(),
            "lost": int(self.lost().sum()),
            "gained": int(self.gained().sum()),
            "probability": {
                "mean_total_variation": float(self.variation.mean()),
                "mean_abs_difference": self.mean_abs,
                "max_abs_difference": self.max_abs,
            },
        }


def classify(
    predictors: Sequence[Predict],
    dataset: Dataset,
    indices: Sequence[int],
    size: tuple[int, int],
    console: Console,
    *,
    labels: Sequence[str],
    split: str,
) -> tuple[list[Answers], list[Floats]]:
    """What each predictor says about the images ``indices``, and its probabilities (N, K).

    Raises:
        InputError: no images, one that cannot be read, or one of a class that the network does not know.
        VerificationError: a predictor gives NaN or infinity.
    """
    refuse_nothing(indices, split)
    found: list[list[Floats]] = [[] for _ in predictors]
    truth: list[int] = []
    with console.bar("evaluate", len(indices)) as bar:
        for batch in read_batches(dataset, indices, size):
            truth += [int(one) for one in batch.truths]
            for predict, parts in zip(predictors, found, strict=True):
                parts.append(_finite(predict(batch.inputs), [dataset.samples[index].id for index in batch.indices]))
            bar.advance(len(batch.indices))
    probabilities = [np.concatenate(parts) for parts in found]
    if max(truth) >= len(labels) or probabilities[0].shape[1] != len(labels):
        raise InputError(
            f"{dataset.name} has a class {max(truth)}, the network knows {probabilities[0].shape[1]} classes",
            hint="evaluate it on the classes that it was trained on",
        )
    ids = tuple(dataset.samples[index].id for index in indices)
    answers = []
    for values in probabilities:
        best = np.argsort(-values, axis=1, kind="stable")[:, :TOP].astype(np.int64)
        first = np.take_along_axis(values, best[:, :1], axis=1)[:, 0]
        names = (dataset.label, split, size, tuple(labels), tuple(indices), ids)
        answers.append(Answers(*names, np.asarray(truth, np.int64), best, first))
    return answers, probabilities


def compare_classes(answers: Sequence[Answers], probabilities: Sequence[Floats]) -> ClassComparison:
    """Reference and candidate, as ``classify`` gives them, side by side."""
    difference = np.abs(probabilities[1].astype(np.float64) - probabilities[0])
    variation = (0.5 * difference.sum(axis=1)).astype(np.float32)
    return ClassComparison(answers[0], answers[1], variation, float(difference.mean()), float(difference.max()))


def _finite(values: Floats, ids: Sequence[str]) -> Floats:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise VerificationError(
            f"the model gives NaN or infinity on {ids[int(np.argmin(finite))]}",
            hint="check the weights and the precision of the artifact",
        )
    return values
