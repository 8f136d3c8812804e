"""Images with masks (phantoms, LGG brain MRI, a user's own folders) and images with classes (shapes, CIFAR-100, a
user's own folders); their fixed splits and their records."""

from edgemamba.data.arrays import Arrays, load_arrays
from edgemamba.data.base import ClassDataset, Dataset, Sample
from edgemamba.data.catalogue import (
    DATASETS,
    DatasetInfo,
    built_in,
    default_data,
    default_split,
    open_dataset,
    refuse_other_task,
)
from edgemamba.data.refs import data_ref, open_ref
from edgemamba.data.splits import FOLDS, Split, split_dataset

__all__ = [
    "DATASETS",
    "FOLDS",
    "Arrays",
    "ClassDataset",
    "Dataset",
    "DatasetInfo",
    "Sample",
    "Split",
    "built_in",
    "data_ref",
    "default_data",
    "default_split",
    "load_arrays",
    "open_dataset",
    "open_ref",
    "refuse_other_task",
    "split_dataset",
]
