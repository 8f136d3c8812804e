"""The table of systems, the paper's figures beside ours: one row a network and way of training.

Records are what ``edgemamba evaluate --json`` prints, for the image split or for the folds of a cross-validation.
Several runs of one row are averaged and their range is given. A cell without a record says that nothing was run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgemamba.files import read_json
from edgemamba.registry import MODELS

NOT_RUN = "not run"
HEADER = (
    "model",
    "trained",
    "parameters",
    "paper",
    "paper's protocol, image split",
    "pooled, image split",
    "five folds of patients: mean a volume",
    "the same, volumes cleaned",
    "records",
)


@dataclasses.dataclass(frozen=True)
class Result:
    """One evaluation record.

    Attributes:
        model: registry name.
        trained: how, in a word or two.
        kind: image, folds, or cleaned (folds with whole volumes processed).
    """

    model: str
    trained: str
    kind: str
    document: dict[str, Any]
    path: Path

    def dice(self, protocol: str) -> dict[str, Any]:
        """Value and interval under a protocol."""
        found: dict[str, Any] = self.document["protocols"][protocol]["dice"]
        return found


def load(folder: Path) -> list[Result]:
    """Every record in ``folder`` that the table shows; single folds are left out, they compare nothing."""
    found = []
    for path in sorted(folder.glob("*.json")):
        document = read_json(path)
        split = document["split"]
        if split not in ("image", "folds") or (split == "image" and "postprocessing" in document):
            continue
        subject = document["subject"] if split == "image" else document["subjects"][0]
        kind = split if "postprocessing" not in document else "cleaned"
        found.append(Result(subject["model"], _trained(subject["run"]), kind, document, path))
    return found


def _trained(run: dict[str, Any]) -> str:
    teachers = sorted({teacher["model"] for teacher in run.get("teachers", [])})
    how = f"distilled from {', '.join(teachers)}" if teachers else str(run["recipe"])
    refit = ", with the validation part" if run.get("refit") else ""
    return f"{how}, {run['epochs']} epochs{refit}"


def rows(results: Sequence[Result], reports: Path) -> Iterable[list[str]]:
    """One row a network and way of training, in the registry's order; networks without any record have one too."""
    for info in MODELS.values():
        if info.task != "segmentation":
            continue
        own = [result for result in results if result.model == info.name]
        for trained in sorted({result.trained for result in own}) or ["-"]:
            group = [result for result in own if result.trained == trained]
            links = [f"[{one.path.stem}]({reports}/{one.path.name})" for one in group]
            yield [
                f"`{info.name}`",
                trained,
                f"{info.parameters:,}",
                "-" if info.paper_dice is None else str(info.paper_dice),
                _cell([one.dice("paper_batch16") for one in group if one.kind == "image"]),
                _cell([one.dice("pooled") for one in group if one.kind == "image"]),
                _cell([one.dice("volume") for one in group if one.kind == "folds"]),
                _cell([one.dice("volume") for one in group if one.kind == "cleaned"]),
                ", ".join(links) or "-",
            ]


def _cell(found: Sequence[dict[str, Any]]) -> str:
    """One run with its interval over patients, or the mean of several with their range."""
    if not found:
        return NOT_RUN
    values = [one["value"] for one in found]
    if len(values) > 1:
        return f"{sum(values) / len(values):.4f} ({len(values)} runs, {min(values):.4f} to {max(values):.4f})"
    low, high = found[0]["low"], found[0]["high"]
    return f"{values[0]:.4f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")
