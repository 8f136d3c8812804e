"""From a data set and a split to their record, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgemamba.data.base import Dataset
from edgemamba.data.catalogue import DATASETS, open_dataset
from edgemamba.data.splits import Split, split_dataset
from edgemamba.errors import InputError

if TYPE_CHECKING:
    from edgemamba.records import DataRef


def data_ref(dataset: Dataset, split: Split) -> DataRef:
    """Record what opens ``dataset`` and ``split`` again; the fingerprint reads every file once."""
    from edgemamba.records import DataRef

    return DataRef(
        name=dataset.name,
        root=None if dataset.root is None else str(dataset.root.resolve()),
        split=split.spec,
        fingerprint=dataset.fingerprint(),
        options=dataset.options,
        counts=split.counts(),
    )


def open_ref(ref: DataRef, root_override: str | Path | None = None) -> tuple[Dataset, Split]:
    """Open the recorded data set, at another place if it has moved, and check that it is the same.

    A published set in another encoding has the same splits; it is taken, and its ``note`` says so.

    Raises:
        InputError: the folder is gone or unknown, or holds other data than was recorded.
        UsageError: a root for a data set that has none.
    """
    root = root_override if root_override is not None else ref.root
    if ref.name in DATASETS and DATASETS[ref.name].needs_root:
        if root is None:
            raise InputError(f"the record of the {ref.name} data names no folder", hint="give it with --data-root DIR")
        if not Path(root).is_dir():
            raise InputError(f"{root}, the folder of the {ref.name} data, is gone", hint="give it with --data-root DIR")
    dataset = open_dataset(ref.name, root, **ref.options)
    found = dataset.fingerprint()
    if found != ref.fingerprint and dataset.published() and len(dataset.samples) == sum(ref.counts.values()):
        dataset.note = "in another encoding than recorded"
    elif found != ref.fingerprint:
        where = "generated" if root is None else f"in {root}"
        raise InputError(
            f"the {ref.name} data {where} is not what was recorded: fingerprint {found[:12]}, expected "
            f"{ref.fingerprint[:12]}",
            hint="give the folder of the recorded data with --data-root DIR, or name other data with --data",
        )
    return dataset, split_dataset(dataset, ref.split)
