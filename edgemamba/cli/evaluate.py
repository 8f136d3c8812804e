"""``edgemamba evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from edgemamba.cli.options import DATA, DATA_ROOT, GROUP, JSON, QUIET, SEED, THREADS


def evaluate(
    context: typer.Context,
    subject: str = typer.Argument(help="A run folder, a Bundle folder, or the name of packaged weights."),
    data: str | None = DATA,
    data_root: Path | None = DATA_ROOT,
    group: str | None = GROUP,
    split: str | None = typer.Option(
        None, "--split", help="image, patient or fold:K. Default: the run's.", show_default=False
    ),
    part: str = typer.Option("test", "--part", help="test, val or train."),
    threshold: float = typer.Option(0.5, "--threshold", help="Probability from which a pixel is lesion."),
    ssm: bool = typer.Option(False, "--ssm", help="Also score the net with its recurrence switched off."),
    runtime: str = typer.Option("auto", "--runtime", help="For a Bundle: auto, onnxruntime, litert or tensorrt."),
    device: str = typer.Option("auto", "--device", help="For a run: auto, cpu or cuda."),
    threads: int = THREADS,
    seed: int = SEED,
    out: Path | None = typer.Option(
        None, "--out", help="Folder of evaluation.json, per_slice.csv and pictures.", show_default=False
    ),
    quiet: bool = QUIET,
    as_json: bool = JSON,
) -> None:
    """Score a run or a Bundle: Dice and IoU under named protocols with intervals over patients.

    Without --data the run's own data and split are used. Missed lesions, false alarms and the worst cases are
    part of the result; pictures are written with --out.

    \b
    edgemamba evaluate runs/mine
    edgemamba evaluate bundles/ul-vm-unet-cpu-int8 --json
    edgemamba evaluate runs/mine --data lgg --data-root lgg --split image --ssm --out scores
    """
    from edgemamba.cli import output
    from edgemamba.cli.options import data_source, given
    from edgemamba.console import Console
    from edgemamba.errors import UsageError
    from edgemamba.evaluation.command import EvaluateOptions, evaluate_subject

    console = Console(quiet=quiet or as_json)
    if data is None and group is not None:
        raise UsageError(
            "--group needs --data folder or classes", hint="the subject's own data is grouped as its run did"
        )
    chosen = None if data is None else data_source(data, data_root, group)
    wrong = ("device", "ssm") if (Path(subject) / "manifest.json").is_file() else ("runtime",)
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
    )
    document = evaluate_subject(subject, options, console)
    if as_json:
        output.document(document)
        return
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
    if out is not None:
        output.pairs([("written to", str(out))])


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
