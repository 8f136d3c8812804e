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
from edgemamba.registry import Task

ENVIRONMENT = "EDGEMAMBA_DATA"


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """One kind of data set.

    Attributes:
        name: what ``--data`` takes.
        factory: ``module:class``; the class takes the root (where it has one) and its options by keyword.
        needs_root: whether it lies in a folder.
        summary: one line for listings.
        task: what is known of a sample: segmentation a mask, classification a class.
        split: where the user says nothing and the data does not come divided.
        layout: ``module:function`` that says whether a folder has the layout; empty where there is no folder.
        files: what the folder holds, in a few words.
    """

    name: str
    factory: str
    needs_root: bool
    summary: str
    task: Task = "segmentation"
    split: str = "patient"
    layout: str = ""
    files: str = ""


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
            layout="edgemamba.data.lgg:find_layout",
            files="kaggle_3m/<patient>/<slice>.tif",
        ),
        DatasetInfo(
            "folder",
            "edgemamba.data.folder:Folder",
            True,
            "your own pairs: images/ and masks/ with equal file stems",
            layout="edgemamba.data.folder:has_layout",
            files="images/ and masks/",
        ),
        DatasetInfo(
            "shapes",
            "edgemamba.data.shapes:Shapes",
            False,
            "seeded figures of eight outlines, built in",
            task="classification",
            split="image",
        ),
        DatasetInfo(
            "cifar100",
            "edgemamba.data.cifar100:Cifar100",
            True,
            "CIFAR-100: cifar-100-python/{train,test,meta} of the official archive",
            task="classification",
            split="official",
            layout="edgemamba.data.cifar100:find_layout",
            files="cifar-100-python/{train,test,meta}",
        ),
        DatasetInfo(
            "classes",
            "edgemamba.data.classes:Classes",
            True,
            "your own pictures, a folder for each class: <class>/x.png or {train,val,test}/<class>/x.png",
            task="classification",
            split="image",
            layout="edgemamba.data.classes:has_layout",
            files="<class>/x.png",
        ),
    )
}


def built_in(task: Task) -> str:
    """Name of the generated data set of a task."""
    return next(info.name for info in DATASETS.values() if info.task == task and not info.needs_root)


def of_task(task: Task) -> list[str]:
    """Names of the data sets of a task."""
    return [info.name for info in DATASETS.values() if info.task == task]


def refuse_other_task(data: str, task: Task, subject: str) -> None:
    """Raise UsageError unless the data set ``data`` is of ``task``, that of ``subject``."""
    info = DATASETS.get(data)
    if info is None or info.task == task:
        return
    known = {"segmentation": "a mask for each image", "classification": "a class for each image"}
    raise UsageError(
        f"{subject} needs {known[task]}; the {data} data has {known[info.task]}",
        hint=f"--data {', '.join(of_task(task))}, or another --model",
    )


def default_split(name: str, root: Path | None) -> str:
    """The split where the user says nothing: the data's own parts where it has them, else the kind's.

    Raises:
        UsageError: unknown name.
    """
    if name not in DATASETS:
        raise UsageError(f"no data set is named {name!r}", hint=did_you_mean(name, DATASETS))
    from edgemamba.data.parts import part_folders

    info = DATASETS[name]
    divided = info.layout and root is not None and info.name != "lgg" and part_folders(Path(root).expanduser())
    return "official" if divided else info.split


def open_dataset(name: str, root: str | Path | None = None, **options: Any) -> Dataset:
    """Find and list a data set.

    Args:
        name: key of :data:`DATASETS`.
        root: its folder; None for generated ones.
        options: phantoms: patients, slices, size, seed; shapes: classes, images, size, seed; folder and classes: group.

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
    """What EDGEMAMBA_DATA names: the first kind of data set whose layout it has, and its root; None: it is not set.

    Raises:
        InputError: it is set to something that has no known layout.
    """
    value = os.environ.get(ENVIRONMENT)
    if not value:
        return None
    root = Path(value).expanduser()
    if not root.is_dir():
        raise InputError(
            f"{ENVIRONMENT}={value} is not a folder", hint=f"set {ENVIRONMENT} to a data folder, or unset it"
        )
    layouts = [info for info in DATASETS.values() if info.layout]
    for info in layouts:
        module, function = info.layout.split(":")
        if getattr(importlib.import_module(module), function)(root):
            return info.name, root
    known = ", ".join(info.files for info in layouts)
    raise InputError(
        f"{ENVIRONMENT}={value} holds none of: {known}",
        hint=f"set {ENVIRONMENT} to a data folder, or unset it",
    )
