"""``edgemamba evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from edgemamba.cli.options import DATA, DATA_ROOT, GROUP, JSON, QUIET, SEED, THREADS


def evaluate(
    context: typer.Context,
    subjects: list[str] = typer.Argument(
        help="A run folder, a Bundle folder or packaged weights; or the runs of all folds of a cross-validation."
    ),
    data: str | None = DATA,
    data_root: Path | None = DATA_ROOT,
    group: str | None = GROUP,
    split: str | None = typer.Option(
        None, "--split", help="image, patient, official or fold:K. Default: the run's.", show_default=False
    ),
    part: str = typer.Option("test", "--part", help="test, val or train."),
    threshold: float = typer.Option(0.5, "--threshold", help="Probability from which a pixel is lesion."),
    flips: bool = typer.Option(False, "--flips", help="Average over the image and its three mirror images."),
    neighbours: float = typer.Option(0.0, "--neighbours", help="Weight of each neighbouring slice's probability."),
    components: float = typer.Option(
        0.0, "--components", help="Remove components smaller than this share of a volume's largest."
    ),
    ssm: bool = typer.Option(False, "--ssm", help="Also score the net with its recurrence switched off."),
    runtime: str = typer.Option("auto", "--runtime", help="For a Bundle: auto, onnxruntime, litert or tensorrt."),
    device: str = typer.Option("auto", "--device", help="For a run: auto, cpu or cuda."),
    threads: int = THREADS,
    seed: int = SEED,
    out: Path | None = typer.Option(
        None, "--out", help="Folder of evaluation.json, the rows as CSV, and pictures.", show_default=False
    ),
    quiet: bool = QUIET,
    as_json: bool = JSON,
) -> None:
    """Score a run or a Bundle: Dice and IoU under named protocols with intervals over patients; of a classifier top-1
    and top-5 with intervals over images.

    Without --data the run's own data and split are used. Missed lesions, false alarms and the worst cases are
    part of the result; pictures are written with --out.

    \b
    edgemamba evaluate runs/mine
    edgemamba evaluate bundles/ul-vm-unet-cpu-int8 --json
    edgemamba evaluate runs/mine --data lgg --data-root lgg --split image --ssm --out scores
    edgemamba evaluate runs/fold0 runs/fold1 runs/fold2 runs/fold3 runs/fold4 --flips --components 0.2
    """
    from edgemamba.cli import output
    from edgemamba.cli.options import data_source, given
    from edgemamba.console import Console
    from edgemamba.errors import UsageError
    from edgemamba.evaluation.command import EvaluateOptions, evaluate_folds, evaluate_subject
    from edgemamba.evaluation.volumes import Postprocessing

    console = Console(quiet=quiet or as_json)
    if data is None and group is not None:
        raise UsageError(
            "--group needs --data folder or classes", hint="the subject's own data is grouped as its run did"
        )
    chosen = None if data is None else data_source(data, data_root, group)
    bundle = any((Path(subject) / "manifest.json").is_file() for subject in subjects)
    wrong = ("device", "ssm") if bundle else ("runtime",)
    idle = [flag for flag in given(context) if flag.removeprefix("--") in wrong]
    if idle:
        kind = "a run: a Bundle has" if len(wrong) == 2 else "a Bundle: a run has"
        raise UsageError(f"{', '.join(idle)} is for {kind} none", hint="leave it out")
    options = EvaluateOptions(
        data=chosen,
        data_root=data_root,
        split=split,
        part=part,
        threshold=threshold,
        ssm=ssm,
        runtime=runtime,
        device=device,
        threads=threads,
        seed=seed,
        out=out,
        processing=Postprocessing(flips, neighbours, components),
    )
    if len(subjects) > 1:
        document = evaluate_folds(subjects, options, console)
    else:
        document = evaluate_subject(subjects[0], options, console)
    if as_json:
        output.document(document)
        return
    if document.get("task") == "classification":
        _show_classes(document)
    else:
        _show_masks(document)
    if out is not None:
        output.pairs([("written to", str(out))])


def _show_classes(document: dict[str, Any]) -> None:
    from edgemamba.cli import output

    output.pairs(
        [
            ("scored", f"{document['images']} images of {document['classes']} classes, {document['dataset']}"),
            ("split", document["split"]),
        ]
    )
    print()
    names = {"top1": "top-1", "top5": "top-5", "balanced": "top-1, mean over classes"}
    rows = [[label, *_share(document[name])] for name, label in names.items()]
    output.table(["right", "share", "95 % interval"], rows)
    print()
    worst = [[row["label"], f"{row['top1']:.4f}", str(row["images"])] for row in document["per_class"][:5]]
    output.table(["least accurate classes", "top-1", "images"], worst)
    if document["mistakes"]:
        print()
        mistakes = [[row["truth"], row["first"], str(row["images"])] for row in document["mistakes"][:5]]
        output.table(["most frequent mistakes", "taken for", "images"], mistakes)


def _share(found: dict[str, Any]) -> tuple[str, str]:
    value = "-" if found["value"] is None else f"{found['value']:.4f}"
    return value, "-" if found["low"] is None else f"{found['low']:.4f} to {found['high']:.4f}"


def _show_masks(document: dict[str, Any]) -> None:
    from edgemamba.cli import output

    output.pairs(
        [
            (
                "scored",
                f"{document['slices']} slices of {document['patients']} patients, {document['dataset']}",
            ),
            (
                "split",
                f"{document['split']}" + (f" ({document['split_note']})" if document["split_note"] else ""),
            ),
        ]
    )
    print()
    output.table(["protocol", "Dice", "95 % interval", "IoU", "n"], list(_protocols(document)))
    print()
    output.pairs((name, _rate(document[name.replace(" ", "_")])) for name in ("missed lesions", "false alarms"))
    if "ssm_contribution" in document:
        output.pairs([("state space", _contribution(document["ssm_contribution"]))])


def _protocols(document: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, found in document["protocols"].items():
        if "dice" not in found:
            rows.append([name, "-", found["left_out"], "-", "-"])
            continue
        dice = found["dice"]
        interval = "-" if dice["low"] is None else f"{dice['low']:.4f} to {dice['high']:.4f}"
        value, iou = (("-" if x["value"] is None else f"{x['value']:.4f}") for x in (dice, found["iou"]))
        rows.append([name, value, interval, iou, f"{found['n']} {found['unit']}"])
    return rows


def _rate(found: dict[str, Any]) -> str:
    share = found["rate"]["value"]
    return (
        f"{found['count']} of {found['of']}" + ("" if share is None else f" ({share:.1%})") + f": {found['definition']}"
    )


def _contribution(found: dict[str, Any]) -> str:
    if "left_out" in found:
        return str(found["left_out"])
    pooled = found["dice"]["pooled"]
    word = "dormant" if found["dormant"] else "in use"
    return f"{word}: pooled Dice {pooled['with']:.4f} with recurrence, {pooled['without']:.4f} without"
