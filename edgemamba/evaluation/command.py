"""What ``edgemamba evaluate`` does: open a run or a Bundle and the data, score, write."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from edgemamba.accelerator import resolve_device
from edgemamba.bundle.check import MANIFEST
from edgemamba.console import Console
from edgemamba.data import (
    DATASETS,
    Dataset,
    Split,
    default_split,
    open_dataset,
    open_ref,
    refuse_other_task,
    split_dataset,
)
from edgemamba.data.catalogue import ENVIRONMENT
from edgemamba.errors import InputError, Unsupported, UsageError, did_you_mean, require
from edgemamba.evaluation.class_pictures import mistake_pictures
from edgemamba.evaluation.classes import classify
from edgemamba.evaluation.contribution import ssm_contribution
from edgemamba.evaluation.evaluate import Evaluation, Predict
from edgemamba.evaluation.evaluate import evaluate as score
from edgemamba.evaluation.pictures import case_pictures, write_pictures
from edgemamba.evaluation.predictors import bundle_predictor
from edgemamba.evaluation.volumes import Postprocessing, evaluate_volumes
from edgemamba.files import new_folder, refuse_taken, refuse_unwritable, sha256_bytes, write_json, write_text
from edgemamba.records import DataRef
from edgemamba.registry import Task
from edgemamba.sources import open_source

PARTS = ("test", "val", "train")
_WORST = 6
_FALSE_ALARMS = 3


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What a user may choose.

    Attributes:
        data: name, root and options of another data set than the run's own.
        data_root: without ``data``, where the run's own data lies now.
        split: another split than the run's.
        part: test, val or train.
        threshold: a probability of at least this is lesion.
        ssm: also score a run with its recurrence switched off.
        runtime: of a Bundle.
        device: of a run.
        threads: CPU threads; 0 leaves torch's choice and gives a Bundle one.
        seed: of the bootstrap.
        out: folder of the results; None writes nothing.
        processing: of whole volumes.
    """

    data: tuple[str, Path | None, dict[str, Any]] | None = None
    data_root: Path | None = None
    split: str | None = None
    part: str = "test"
    threshold: float = 0.5
    ssm: bool = False
    runtime: str = "auto"
    device: str = "auto"
    threads: int = 0
    seed: int = 0
    out: Path | None = None
    processing: Postprocessing = dataclasses.field(default_factory=Postprocessing)

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UsageError(f"--part is {self.part!r}", hint=did_you_mean(self.part, PARTS))
        if not 0 < self.threshold < 1:
            raise UsageError(f"--threshold is {self.threshold}, not between 0 and 1")


@dataclasses.dataclass(frozen=True)
class _Subject:
    predict: Predict
    size: tuple[int, int]
    data: DataRef | None
    about: dict[str, Any]
    task: Task
    labels: tuple[str, ...]
    model: Any = None


def evaluate_subject(subject: str, options: EvaluateOptions, console: Console) -> dict[str, Any]:
    """Score a run folder, a Bundle folder or packaged weights.

    Returns:
        the evaluation's document, of masks or of classes, with ``subject`` and, if asked, ``ssm_contribution``.

    Raises:
        UsageError: no such subject, or an option that does not fit it.
        Unsupported: another project's network, whose task is not known.
        InputError: the data is missing or damaged, or ``out`` is taken.
    """
    if options.out is not None:
        refuse_taken(options.out)
        refuse_unwritable(options.out)
    opened = _open(subject, options, console)
    if opened.task == "tensor":
        raise Unsupported(
            f"accuracy cannot be measured: the task of {opened.about['name']} is not known",
            hint="edgemamba profile measures its time, memory and agreement with PyTorch",
        )
    dataset, split = _data(opened, options)
    indices = getattr(split, options.part)
    if opened.task == "classification":
        return _classes(opened, options, dataset, indices, split.spec, console)
    found = _masks(opened, options, dataset, indices, split, console)
    document = {**found.document(seed=options.seed), "part": options.part, "subject": opened.about}
    if options.ssm:
        if opened.model is None:
            raise UsageError("--ssm needs a run: a Bundle's recurrence cannot be switched off")
        device = resolve_device(options.device)
        document["ssm_contribution"] = ssm_contribution(
            opened.model,
            dataset,
            indices,
            opened.size,
            console,
            options.threshold,
            split=split.spec,
            device=device,
        )
    if options.out is not None:
        _write(options.out, document, found, opened.predict, dataset)
    return document


def evaluate_folds(subjects: Sequence[str], options: EvaluateOptions, console: Console) -> dict[str, Any]:
    """Score the runs of a cross-validation together: every patient by the run that has not seen it.

    Returns:
        the evaluation's document over all runs' test parts, with ``subjects`` and each fold's mean a volume.

    Raises:
        UsageError: an option that does not fit several runs.
        InputError: the runs are no folds of one data set and model, or two of one fold.
    """
    if options.ssm or options.part != "test":
        raise UsageError("several runs are scored on their test parts, without --ssm", hint="leave them out")
    parts: list[Evaluation] = []
    about: list[dict[str, Any]] = []
    kinds = set()
    for subject in subjects:
        opened = _open(subject, options, console)
        if opened.data is None or not opened.data.split.startswith("fold:") or opened.task != "segmentation":
            raise InputError(
                f"{subject} is no fold of a cross-validation", hint="train with --split fold:0 to --split fold:4"
            )
        dataset, split = _data(opened, options)
        parts.append(_masks(opened, options, dataset, split.test, split, console))
        about.append(opened.about)
        kinds.add((opened.about["model"], opened.data.fingerprint, opened.size))
    if len(kinds) > 1:
        raise InputError("the runs differ in model, data or size", hint="give the folds of one cross-validation")
    folds = [part.split for part in parts]
    if len(set(folds)) < len(folds):
        raise InputError(f"two runs are of one fold: {', '.join(sorted(folds))}", hint="give one run for each fold")
    whole = dataclasses.replace(parts[0], split="folds", slices=tuple(one for part in parts for one in part.slices))
    document = whole.document(seed=options.seed)
    document["folds"] = {part.split: part.value("volume") for part in parts}
    document["per_patient"] = [{**row, "patient": _pseudonym(row["patient"])} for row in whole.per_patient()]
    if options.out is not None:
        with new_folder(options.out) as folder:
            write_json(folder / "evaluation.json", {**document, "subjects": about})
            write_text(folder / "per_slice.csv", whole.per_slice_csv())
    return {**document, "subjects": about}


def _pseudonym(patient: str) -> str:
    return sha256_bytes(patient.encode())[:12]


def _masks(
    opened: _Subject,
    options: EvaluateOptions,
    dataset: Dataset,
    indices: Sequence[int],
    split: Split,
    console: Console,
) -> Evaluation:
    if options.processing.idle:
        return score(opened.predict, dataset, indices, opened.size, console, options.threshold, split=split.spec)
    if split.spec == "image" and (options.processing.neighbours or options.processing.component_share):
        raise UsageError(
            "the image split holds single slices, not volumes", hint="leave out --neighbours, --components"
        )
    return evaluate_volumes(
        opened.predict,
        dataset,
        indices,
        opened.size,
        console,
        options.threshold,
        options.processing,
        split=split.spec,
    )


def _classes(
    opened: _Subject,
    options: EvaluateOptions,
    dataset: Dataset,
    indices: Sequence[int],
    split: str,
    console: Console,
) -> dict[str, Any]:
    """The evaluation of a classifier."""
    if options.ssm or options.threshold != EvaluateOptions.threshold or not options.processing.idle:
        raise UsageError(
            "--ssm, --threshold, --flips, --neighbours and --components are for networks that segment",
            hint="leave them out",
        )
    answers, _ = classify([opened.predict], dataset, indices, opened.size, console, labels=opened.labels, split=split)
    document = {**answers[0].document(seed=options.seed), "part": options.part, "subject": opened.about}
    if options.out is not None:
        with new_folder(options.out) as folder:
            write_json(folder / "evaluation.json", document)
            write_text(folder / "per_image.csv", answers[0].per_image_csv())
            write_pictures(mistake_pictures(dataset, answers[0]), folder / "pictures")
    return document


def _open(subject: str, options: EvaluateOptions, console: Console) -> _Subject:
    folder = Path(subject)
    if (folder / MANIFEST).is_file():
        predictor = bundle_predictor(folder, options.runtime, options.threads or 1)
        if predictor.note:
            console.line(predictor.note)
        manifest = predictor.manifest
        about = {
            "kind": "bundle",
            "name": manifest.name,
            "model": manifest.model,
            "precision": manifest.precision,
            "runtime": f"{predictor.runtime} {predictor.version}",
        }
        return _Subject(
            predictor, predictor.size, manifest.data, about, cast(Task, manifest.task), tuple(manifest.labels)
        )
    source = open_source(subject)
    require("torch", "train")
    import torch

    from edgemamba.models.predictor import torch_predictor

    if options.threads:
        torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    model = source.build().to(device)
    about = {
        "kind": "run",
        **source.document(),
        "model": source.model,
        "runtime": f"torch {torch.__version__}",
    }
    task = source.info.task
    predict = torch_predictor(model, device, task)
    return _Subject(predict, source.size, source.data, about, task, tuple(source.labels), model)


def _data(opened: _Subject, options: EvaluateOptions) -> tuple[Dataset, Split]:
    """The data asked for, else the subject's own."""
    if options.data is not None:
        name, root, settings = options.data
        refuse_other_task(name, opened.task, str(opened.about["model"]))
        dataset = open_dataset(name, root, **settings)
        own, usual = opened.data.split if opened.data is not None else "patient", default_split(name, root)
        # Parts of its own are a matter of the data, other splits one of the run.
        return dataset, split_dataset(dataset, options.split or (usual if "official" in (own, usual) else own))
    if opened.data is None:
        raise InputError(
            f"{opened.about['name']} does not say which data it was trained on",
            hint="name the data with --data, --data-root and --split",
        )
    dataset, split = open_ref(opened.data, options.data_root or _data_place(opened.data))
    return dataset, split if options.split is None else split_dataset(dataset, options.split)


def _data_place(ref: DataRef) -> str | None:
    """EDGEMAMBA_DATA for data of files whose record, as a Bundle's does, names no folder."""
    files = ref.name in DATASETS and DATASETS[ref.name].needs_root
    return (os.environ.get(ENVIRONMENT) or None) if files and ref.root is None else None


def _write(out: Path, document: dict[str, Any], found: Evaluation, predict: Predict, dataset: Dataset) -> None:
    cases = [*found.worst(_WORST), *found.largest_false_alarms(_FALSE_ALARMS), *found.examples().values()]
    unique = list({case.index: case for case in cases}.values())
    with new_folder(out) as folder:
        write_json(folder / "evaluation.json", document)
        write_text(folder / "per_slice.csv", found.per_slice_csv())
        write_pictures(case_pictures(predict, dataset, found, unique), folder / "pictures")
