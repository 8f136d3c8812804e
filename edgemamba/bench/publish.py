"""``python -m edgemamba.bench.publish RUN NAME --record RECORD.json``: a run's weights as ``export/weights/NAME``.

The record is what ``edgemamba evaluate RUN --ssm --json`` printed for these weights: the model card says nothing that
is not in it or in the run's own record.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgemamba.bench import entry
from edgemamba.errors import InputError
from edgemamba.files import new_folder, read_json, sha256_file, write_bytes, write_json, write_text
from edgemamba.registry import model_info

LARGEST_BYTES = 5_000_000
_WEIGHTS = "model.safetensors"
_DATA = """* Data: "LGG MRI Segmentation", 110 patients of The Cancer Genome Atlas lower-grade glioma collection, 3,929
  axial slices, masks of the FLAIR abnormality by Buda, Saha and Mazurowski, Computers in Biology and Medicine 109,
  2019. Cite that paper."""
_LEAK = (
    "**Slices of one patient are in training and in test**: the figures\n  measure known patients, as the paper's do."
)
_LIMITS = """## Limits

Research use only. Not a medical device, not for diagnosis. One public set of 110 patients with a known tumour, 2-D
slices, fixed preprocessing: other scanners, sequences, diseases and healthy people are outside what was measured. A
small change of Dice can be a missed lesion: missed lesions and false alarms are listed beside it.

## Licence

The weights are under Apache-2.0 with the code. The data has its own terms.
"""


def publish(run: Path, name: str, evaluation: dict[str, Any], weights: Path, quality: str = "") -> Path:
    """Make ``weights / name`` with model.safetensors, run.json and MODEL_CARD.md.

    Args:
        run: folder of a finished training on LGG.
        name: of the packaged weights.
        evaluation: record of these weights.
        weights: folder of all packaged weights.
        quality: of the evaluated slices in a word, such as pixel-exact.

    Raises:
        InputError: the run is not finished, its weights are too large to ship, or the record is of other weights.
    """
    record = read_json(run / "run.json")
    if record["state"] != "finished" or record["data"]["name"] != "lgg":
        raise InputError(f"{run} is not a finished run on LGG", hint="edgemamba train --resume, or choose another")
    asked = evaluation.get("subject", {}).get("weights_sha256")
    file = next((run / place for place, digest in record["weights"].items() if digest == asked), None)
    if file is None or sha256_file(file) != asked:
        raise InputError(
            "the record is of other weights than this run's", hint=f"edgemamba evaluate {run} --ssm --json"
        )
    if file.stat().st_size > LARGEST_BYTES:
        raise InputError(f"{file} has more than {LARGEST_BYTES:,} bytes", hint="only small checkpoints are packaged")
    shipped = {**record, "data": {**record["data"], "root": None}, "weights": {_WEIGHTS: asked}}
    # No folder of the machine that trained leaves it.
    taught = [{**one, "run": Path(one["run"]).name} for one in record["environment"].get("teachers", [])]
    shipped["environment"] = {**record["environment"], **({"teachers": taught} if taught else {})}
    folder = weights / name
    with new_folder(folder) as place:
        write_bytes(place / _WEIGHTS, file.read_bytes())
        write_json(place / "run.json", shipped)
        write_text(place / "MODEL_CARD.md", card(name, shipped, evaluation, file.stem, f" {quality}".rstrip()))
    return folder


def card(name: str, run: dict[str, Any], evaluation: dict[str, Any], epoch: str, quality: str = "") -> str:
    """The model card; ``epoch`` is which one's weights these are, best or last, ``quality`` that of the slices."""
    info = model_info(run["model"])
    height, width = run["size"]
    counts = " / ".join(f"{run['data']['counts'][part]:,}" for part in ("train", "val", "test"))
    split = f"* Split: `{run['data']['split']}` ({counts} slices)."
    return f"""# {name}: {info.name} on LGG brain MRI, split {run["data"]["split"]}

* Network: {info.summary}; `{info.name}`, {run["parameters"]:,} parameters, input 3x{height}x{width} RGB in [0, 1]
  (pre-contrast, FLAIR, post-contrast), output one logit a pixel; probability 0.5 is the threshold.
{_DATA}
{f"{split} {_LEAK}" if run["data"]["split"] == "image" else split}

## Training

{_training(run, epoch)}

## Measured on the test part ({evaluation["slices"]:,}{quality} slices, {evaluation["patients"]} patients)

{_measured(name, evaluation, info.paper_dice if run["data"]["split"] == "image" else None)}

{_LIMITS}"""


def _training(run: dict[str, Any], epoch: str) -> str:
    environment = run["environment"]
    options = ["--model", run["model"], "--data lgg --data-root DIR --split", run["data"]["split"]]
    options += ["--epochs", str(run["epochs"]), "--batch", str(run["batch"]), "--seed", str(run["seed"])]
    options += [f"--{flag}" for flag in ("refit", "amp", "compile") if environment.get(flag)]
    teachers = [f"{one['model']} ({one['weights_sha256'][:12]})" for one in environment.get("teachers", [])]
    taught = f", distilled from {' and '.join(teachers)}" if teachers else ""
    refit = ", with the validation part" if environment.get("refit") else ""
    shipped = f"best epoch by validation, {run['best_epoch']}" if epoch == "best" else "last epoch"
    device = environment["gpu"] if environment["device"] == "cuda" else environment["cpu"]
    lines = [
        f"Seed {run['seed']}, {run['epochs']} epochs of the {run['recipe']} recipe{refit}{taught},",
        f"batch {run['batch']}, on {device} ({run['train_seconds']:,.0f} s, torch {environment['packages']['torch']}),",
        f"code as of commit {run['commit']}:",
        f"`edgemamba train {' '.join(options)} --device {environment['device']}`.",
        f"Shipped is the {shipped}.",
    ]
    return "\n".join(lines)


def _measured(name: str, evaluation: dict[str, Any], paper: float | None) -> str:
    protocols, missed, alarms = (evaluation[key] for key in ("protocols", "missed_lesions", "false_alarms"))
    lines = []
    for protocol, title in (("paper_batch16", "Paper's protocol"), ("pooled", "Pooled"), ("volume", "Mean a volume")):
        dice = protocols.get(protocol, {}).get("dice")
        if dice is not None:
            beside = f"; the paper: {paper}" if paper is not None and protocol == "paper_batch16" else ""
            interval = f"(95 % over patients: {dice['low']:.3f} to {dice['high']:.3f}{beside})"
            lines.append(f"* {title}: Dice {dice['value']:.4f} {interval}.")
    lines.append(f"* Missed lesions: {missed['count']} of {missed['of']} slices.")
    lines.append(f"* False alarms: {alarms['count']} of {alarms['of']} empty slices.")
    if "ssm_contribution" in evaluation:
        without = evaluation["ssm_contribution"]["dice"]["pooled"]["without"]
        lines.append(f"* With the recurrence of its scans switched off the pooled Dice is {without:.4f}.")
    lines.append(f"* `edgemamba evaluate {name} --data lgg --data-root DIR --ssm` gives these again.")
    return "\n".join(lines)


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
