"""Images with masks: phantoms, LGG brain MRI, a user's own folders; their fixed splits and their records."""

from edgemamba.data.arrays import Arrays, load_arrays
from edgemamba.data.base import Dataset, Sample
from edgemamba.data.catalogue import DATASETS, DatasetInfo, default_data, open_dataset
from edgemamba.data.refs import data_ref, open_ref
from edgemamba.data.splits import FOLDS, Split, parse_spec, split_dataset

__all__ = [
    "DATASETS",
    "FOLDS",
    "Arrays",
    "Dataset",
    "DatasetInfo",
    "Sample",
    "Split",
    "data_ref",
    "default_data",
    "load_arrays",
    "open_dataset",
    "open_ref",
    "parse_spec",
    "split_dataset",
]
