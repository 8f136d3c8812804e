"""The table of data sets, readable without numpy or Pillow, and how one is opened.

A new data set is one module with a subclass of ``base.Dataset`` and its row here.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
from pathlib import Path
from typing import Any

from edgemamba.data.base import Dataset
from edgemamba.errors import InputError, UsageError, did_you_mean

ENVIRONMENT = "EDGEMAMBA_DATA"


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """One kind of data set.

    Attributes:
        name: what ``--data`` takes.
        factory: ``module:class``; the class takes the root (where it has one) and its options by keyword.
        needs_root: whether it lies in a folder.
        summary: one line for listings.
    """

    name: str
    factory: str
    needs_root: bool
    summary: str


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            "phantoms",
            "edgemamba.data.phantoms:Phantoms",
            False,
            "seeded brain-like phantoms with lesions, built in",
        ),
        DatasetInfo(
            "lgg",
            "edgemamba.data.lgg:LGG",
            True,
            "LGG brain MRI: kaggle_3m/<patient>/<slice>.tif and _mask.tif",
        ),
        DatasetInfo(
            "folder",
            "edgemamba.data.folder:Folder",
            True,
            "your own pairs: images/ and masks/ with equal file stems",
        ),
    )
}


def open_dataset(name: str, root: str | Path | None = None, **options: Any) -> Dataset:
    """Find and list a data set.

    Args:
        name: key of :data:`DATASETS`.
        root: its folder; None for phantoms.
        options: phantoms: patients, slices, size, seed; folder: group.

    Raises:
        UsageError: unknown name or option, a root missing or given in vain.
        InputError: the folder does not have the layout.
    """
    if name not in DATASETS:
        raise UsageError(f"no data set is named {name!r}", hint=did_you_mean(name, DATASETS))
    info = DATASETS[name]
    module, kind = info.factory.split(":")
    factory = getattr(importlib.import_module(module), kind)
    known = set(inspect.signature(factory).parameters) - {"root"}
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known) if known else f"{name} takes no options"
            raise UsageError(f"{name} has no option {option!r}", hint=hint)
    if not info.needs_root:
        if root is not None:
            raise UsageError(f"{name} are generated and have no folder", hint="leave the data root out, or name --data")
        generated: Dataset = factory(**options)
        return generated
    if root is None:
        raise UsageError(f"{name} needs the folder of its files", hint=f"--data-root DIR, or set {ENVIRONMENT}")
    try:
        found: Dataset = factory(Path(root).expanduser(), **options)
    except OSError as error:
        raise InputError(f"{root} cannot be read: {error.strerror}", hint="check the folder's permissions") from None
    return found


def default_data() -> tuple[str, Path] | None:
    """What EDGEMAMBA_DATA names: ("lgg" or "folder", its root), or None where it is not set.

    Raises:
        InputError: it is set to something that has neither layout.
    """
    value = os.environ.get(ENVIRONMENT)
    if not value:
        return None
    from edgemamba.data import folder, lgg

    root = Path(value).expanduser()
    if not root.is_dir():
        raise InputError(
            f"{ENVIRONMENT}={value} is not a folder", hint=f"set {ENVIRONMENT} to a data folder, or unset it"
        )
    if lgg.find_layout(root) is not None:
        return "lgg", root
    if folder.has_layout(root):
        return "folder", root
    raise InputError(
        f"{ENVIRONMENT}={value} holds neither kaggle_3m/<patient>/<slice>.tif nor images/ and masks/",
        hint=f"set {ENVIRONMENT} to a data folder, or unset it",
    )
