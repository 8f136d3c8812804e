"""From the probabilities of a volume's slices to its mask: averaging over flips, smoothing across slices, and removing
components that are small beside the largest.

None of it is in the exported network: it is what a program around it can do with whole volumes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgemamba.board.images import to_mask
from edgemamba.console import Console
from edgemamba.errors import InputError, UsageError
from edgemamba.evaluation.evaluate import (
    Evaluation,
    SliceScore,
    probabilities,
    read_batches,
    refuse_nothing,
    score_slice,
)

if TYPE_CHECKING:
    from edgemamba.data.base import Dataset

Floats = NDArray[np.float32]
Predict = Callable[[Floats], Floats]
Mask = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Postprocessing:
    """What is done to a volume, chosen on validation patients.

    Attributes:
        flips: average the network's answers to the image and its three mirror images.
        neighbours: weight of each neighbouring slice's probability; the slice itself has the rest.
        component_share: components smaller than this share of the volume's largest are removed.

    Raises:
        UsageError: a number out of range.
    """

    flips: bool = False
    neighbours: float = 0.0
    component_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.neighbours <= 0.5:
            raise UsageError(f"--neighbours is {self.neighbours}; it is from 0 to 0.5")
        if not 0 <= self.component_share <= 1:
            raise UsageError(f"--components is {self.component_share}; it is from 0 to 1")

    @property
    def idle(self) -> bool:
        """Whether it changes nothing."""
        return self == Postprocessing()

    def masks(self, probability: Floats, threshold: float, size: tuple[int, int]) -> Mask:
        """Masks (slices, h, w) at ``size`` of probabilities (slices, h', w'), slices in their order."""
        smoothed = smooth(probability, self.neighbours)
        found = np.stack([to_mask(one, threshold, size) for one in smoothed]) > 0
        return remove_small(found, self.component_share) if self.component_share > 0 else found


def evaluate_volumes(
    predict: Predict,
    dataset: Dataset,
    indices: Sequence[int],
    size: tuple[int, int],
    console: Console,
    threshold: float,
    processing: Postprocessing,
    *,
    split: str,
) -> Evaluation:
    """``evaluate.evaluate`` with ``processing`` of every patient's volume.

    Raises:
        InputError: as there; or a patient's slices differ in size.
        VerificationError: the predictor gives NaN or infinity.
    """
    refuse_nothing(indices, split)
    slices: list[SliceScore] = []
    if processing.flips:
        predict = flip_averaged(predict)
    ordered = sorted(indices, key=lambda index: (dataset.samples[index].patient, dataset.samples[index].number))
    with console.bar("evaluate", len(indices)) as bar:
        for patient, group in itertools.groupby(ordered, lambda index: dataset.samples[index].patient):
            chosen, found = list(group), []
            truths: list[NDArray[np.uint8]] = []
            for batch in read_batches(dataset, chosen, size):
                found.append(probabilities(predict, batch, dataset))
                truths += batch.truths
                bar.advance(len(batch.indices))
            if len({truth.shape for truth in truths}) > 1:
                raise InputError(
                    f"the slices of {patient} differ in size, so they are no volume",
                    hint="leave out --neighbours and --components",
                )
            masks = processing.masks(np.concatenate(found), threshold, truths[0].shape)
            for index, mask, truth in zip(chosen, masks.astype(np.uint8), truths, strict=True):
                slices.append(score_slice(dataset, index, mask, truth))
    return Evaluation(dataset.label, split, size, threshold, tuple(slices), dataclasses.asdict(processing))


def flip_averaged(predict: Predict) -> Predict:
    """``predict`` of images (n, 3, h, w), averaged over the image and its mirror images."""

    def average(images: Floats) -> Floats:
        axes: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))
        total = np.zeros((len(images), *images.shape[2:]), np.float32)
        for turned in axes:
            found = predict(np.ascontiguousarray(np.flip(images, turned)))
            total += np.flip(found, tuple(axis - 1 for axis in turned))
        return total / np.float32(len(axes))

    return average


def smooth(probability: Floats, neighbours: float) -> Floats:
    """Weighted mean of each slice and its two neighbours; the first and the last are their own neighbours."""
    if not neighbours:
        return probability
    padded = np.concatenate([probability[:1], probability, probability[-1:]])
    mixed: Floats = (1 - 2 * neighbours) * probability + neighbours * (padded[:-2] + padded[2:])
    return mixed


def remove_small(mask: Mask, share: float) -> Mask:
    """Remove 26-connected components of fewer voxels than ``share`` of the largest one's; mask (slices, h, w)."""
    labels = components(mask)
    sizes = np.bincount(labels.ravel())
    if len(sizes) <= 2:
        return mask
    sizes[0] = 0
    kept = sizes >= share * sizes.max()
    kept[0] = False
    return kept[labels]


def components(mask: Mask) -> NDArray[np.int64]:
    """Labels of the 26-connected components of a mask (slices, h, w), 1 to n; 0 outside.

    Runs along rows are the nodes; runs that touch, diagonally too, in the rows around are joined.
    """
    runs, rows = _runs(mask)
    parent = list(range(len(runs)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for (z, y), here in rows.items():
        for near in ((z, y - 1), (z - 1, y - 1), (z - 1, y), (z - 1, y + 1)):
            for one in here:
                for other in rows.get(near, ()):
                    # Half open runs touch, diagonally too, where neither ends before the other begins.
                    if runs[one][2] <= runs[other][3] and runs[other][2] <= runs[one][3]:
                        parent[root(one)] = root(other)
    names = {node: number for number, node in enumerate(sorted({root(node) for node in parent}), 1)}
    labels = np.zeros(mask.shape, np.int64)
    for node, (z, y, begin, end) in enumerate(runs):
        labels[z, y, begin:end] = names[root(node)]
    return labels


def _runs(mask: Mask) -> tuple[list[tuple[int, int, int, int]], dict[tuple[int, int], list[int]]]:
    """Runs (slice, row, begin, end), and the numbers of those of each row."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (0, 0), (1, 1))), axis=2)
    begins, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    runs = [(int(z), int(y), int(b), int(e)) for (z, y, b), (_, _, e) in zip(begins, ends, strict=True)]
    rows: dict[tuple[int, int], list[int]] = {}
    for number, (z, y, _, _) in enumerate(runs):
        rows.setdefault((z, y), []).append(number)
    return runs, rows
