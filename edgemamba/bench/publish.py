"""``python -m edgemamba.bench.publish RUN NAME --record RECORD.json``: a run's weights as ``export/weights/NAME``.

The record is what ``edgemamba evaluate RUN --ssm --json`` printed for these weights. The model card says what is in it
and in the run's own record, and how good the evaluated slices were, which neither knows (``--quality``).
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

from edgemamba.bench import entry
from edgemamba.bundle.card import DATA
from edgemamba.errors import InputError
from edgemamba.files import new_folder, read_json, sha256_file, write_bytes, write_text
from edgemamba.records import RunRecord, load_record, save_record
from edgemamba.registry import model_info
from edgemamba.tasks import rules_of
from edgemamba.train.run_folder import ENCODER_FROM, STARTED_FROM

LARGEST_BYTES = 5_000_000
_WEIGHTS = "model.safetensors"
_PROTOCOLS = {"paper_batch16": "Paper's protocol", "pooled": "Pooled", "volume": "Mean a volume"}
_LEAK = "Slices of one patient are in training and in test: the figures measure known patients, as the paper's do."
_SCHEMA = "edgemamba.evaluation/1"


def publish(run: Path, name: str, evaluation: dict[str, Any], weights: Path, quality: str = "") -> Path:
    """Make ``weights / name`` with model.safetensors, run.json and MODEL_CARD.md.

    Args:
        run: folder of a finished training of a segmentation network.
        name: of the packaged weights.
        evaluation: record of these weights.
        weights: folder of all packaged weights.
        quality: of the evaluated slices in a word, such as pixel-exact.

    Raises:
        InputError: the run is not finished or no segmentation, its weights are too large to ship, the record is of
            other weights, or the name is taken.
    """
    if Path(name).name != name:
        raise InputError(f"{name} is no name of weights", hint="letters, digits and -, no folders")
    record = load_record(run / "run.json", RunRecord)
    if record.state != "finished":
        raise InputError(f"{run} is not a finished run", hint=f"edgemamba train --resume --out {run}")
    if model_info(record.model).task != "segmentation":
        raise InputError(f"{record.model} is no segmentation network", hint="only those have a model card here")
    again = f"edgemamba evaluate {run} --ssm --json"
    if not isinstance(evaluation, dict) or evaluation.get("schema") != _SCHEMA or "subject" not in evaluation:
        raise InputError("that is no record of evaluating one network", hint=again)
    asked = evaluation["subject"].get("weights_sha256")
    file = next((run / place for place, digest in record.weights.items() if digest == asked), None)
    if file is None or not file.is_file() or sha256_file(file) != asked:
        raise InputError("the record is of other weights than this run's", hint=again)
    if file.stat().st_size > LARGEST_BYTES:
        raise InputError(f"{file} has more than {LARGEST_BYTES:,} bytes", hint="only small checkpoints are packaged")
    shipped = _without_places(record).model_copy(update={"weights": {_WEIGHTS: asked}})
    text = card(name, shipped, evaluation, last=file.stem == "last", quality=quality)
    folder = weights / name
    with new_folder(folder) as place:
        write_bytes(place / _WEIGHTS, file.read_bytes())
        save_record(place / "run.json", shipped)
        write_text(place / "MODEL_CARD.md", text)
    return folder


def _without_places(record: RunRecord) -> RunRecord:
    """No folder of the machine that trained leaves it."""
    environment = dict(record.environment)
    if "teachers" in environment:
        environment["teachers"] = [{**one, "run": Path(one["run"]).name} for one in environment["teachers"]]
    data = record.data.model_copy(update={"root": None})
    return record.model_copy(update={"data": data, "environment": environment})


def card(name: str, run: RunRecord, evaluation: dict[str, Any], *, last: bool, quality: str = "") -> str:
    """The model card.

    Args:
        name: of the packaged weights.
        run: what made them.
        evaluation: their record.
        last: these are the last epoch's weights, not the best one's.
        quality: of the evaluated slices.
    """
    info, data = model_info(run.model), run.data
    height, width = run.size
    counts = ", ".join(f"{count:,} {part}" for part, count in data.counts.items())
    leak = f" {_LEAK}" if data.split == "image" else ""
    evaluated = f"{evaluation['slices']:,} {quality} slices".replace("  ", " ")
    sections = {
        "": [
            f"Network: {info.summary}; `{info.name}`, {run.parameters:,} parameters. Input 3x{height}x{width} RGB in "
            "[0, 1], output one logit a pixel; probability 0.5 is the threshold.",
            f"Data: {DATA.get(data.name, data.name)}",
            f"Split `{data.split}`: {counts}.{leak}",
        ],
        "Training": _training(run, last=last),
        f"Measured on the test part ({evaluated}, {evaluation['patients']} patients)": _measured(
            name, evaluation, info.paper_dice if data.split == "image" else None
        ),
        "Limits": ["Research use only. Not a medical device, not for diagnosis.", *rules_of(info.task).limits],
        "Licence": ["The weights are under Apache-2.0 with the code. The data has its own terms."],
    }
    lines = [f"# {name}: {info.name}, data {data.name}, split {data.split}", ""]
    for title, points in sections.items():
        lines += [f"## {title}", ""] if title else []
        lines += [textwrap.fill(f"* {point}", 120, subsequent_indent="  ", break_on_hyphens=False) for point in points]
        lines.append("")
    return "\n".join(lines)


def _training(run: RunRecord, *, last: bool) -> list[str]:
    environment, teachers = run.environment, run.environment.get("teachers", [])
    options = [f"--model {run.model} --data {run.data.name} --data-root DIR --split {run.data.split}"]
    options += [f"--epochs {run.epochs} --batch {run.batch} --seed {run.seed} --device {environment['device']}"]
    options += [f"--recipe {run.recipe}"] if run.recipe not in ("default", "distill") else []
    options += ["--checkpoint last"] if run.settings.get("checkpoint") == "last" else []
    options += [f"--{flag}" for flag in ("refit", "amp", "compile") if environment.get(flag)]
    options += [f"--teacher {one['run']}" for one in teachers]
    points = [
        f"Recipe {run.recipe}, on {environment.get('gpu') or environment['cpu']}, {run.train_seconds:,.0f} s, torch "
        f"{environment['packages']['torch']}, code as of commit {run.commit}.",
        f"`edgemamba train {' '.join(options)}`",
    ]
    for option, origin in (("--weights", STARTED_FROM), ("--encoder-weights", ENCODER_FROM)):
        if origin in environment:
            points.append(
                f"It started from `{option}` of SHA-256 {environment[origin][:16]}, which the command has to name."
            )
    points += [f"Teacher {one['run']}: {one['model']}, weights {one['weights_sha256'][:16]}." for one in teachers]
    points.append(f"Shipped is the {'last epoch' if last else f'best epoch by validation, {run.best_epoch}'}.")
    return points


def _measured(name: str, evaluation: dict[str, Any], paper: float | None) -> list[str]:
    points = []
    for protocol, title in _PROTOCOLS.items():
        dice = evaluation["protocols"].get(protocol, {}).get("dice")
        if dice is None:
            continue
        interval = "" if dice["low"] is None else f" (95 % over patients: {dice['low']:.3f} to {dice['high']:.3f})"
        beside = f"; the paper: {paper}" if paper is not None and protocol == "paper_batch16" else ""
        points.append(f"{title}: Dice {dice['value']:.4f}{interval}{beside}.")
    missed, alarms = evaluation["missed_lesions"], evaluation["false_alarms"]
    points.append(f"Missed lesions: {missed['count']} of {missed['of']} slices.")
    points.append(f"False alarms: {alarms['count']} of {alarms['of']} empty slices.")
    if "ssm_contribution" in evaluation:
        without = evaluation["ssm_contribution"]["dice"]["pooled"]["without"]
        points.append(f"With the recurrence of its scans switched off the pooled Dice is {without:.4f}.")
    data = evaluation["dataset"]
    points.append(f"`edgemamba evaluate {name} --data {data} --data-root DIR --ssm` gives these again.")
    return points


def main() -> None:
    """Package one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--record", type=Path, required=True, help="what evaluate --ssm --json printed")
    parser.add_argument("--weights", type=Path, default=Path("export/weights"), help="folder of all packaged weights")
    parser.add_argument("--quality", default="", help="of the evaluated slices, such as pixel-exact")
    arguments = parser.parse_args()
    record = read_json(arguments.record)
    print(publish(arguments.run, arguments.name, record, arguments.weights, arguments.quality))


if __name__ == "__main__":
    entry.run(main)
