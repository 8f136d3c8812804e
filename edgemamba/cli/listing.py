"""``edgemamba list``."""

from __future__ import annotations

import dataclasses

import typer

from edgemamba.cli.options import JSON


def listing(
    what: str = typer.Argument(help="models, targets, devices, datasets or weights."), as_json: bool = JSON
) -> None:
    """List models, export targets, devices, data sets or packaged weights.

    \b
    edgemamba list models
    edgemamba list targets --json
    """
    from edgemamba.cli import output
    from edgemamba.errors import UsageError, did_you_mean

    if what not in _TABLES:
        raise UsageError(f"there is no list of {what}", hint=did_you_mean(what, _TABLES))
    header, rows, documents = _TABLES[what]()
    if as_json:
        output.document({"schema": f"edgemamba.{what}/1", what: documents})
    else:
        output.table(header, rows)


_Listing = tuple[list[str], list[list[str]], list[dict[str, object]]]


def _models() -> _Listing:
    from edgemamba.registry import MODELS

    rows = [
        [
            m.name,
            m.task,
            f"{m.parameters:,}",
            str(m.stride),
            "-" if m.paper_dice is None else f"{m.paper_dice}",
            m.summary,
        ]
        for m in MODELS.values()
    ]
    return (
        ["name", "task", "parameters", "stride", "paper Dice", "what"],
        rows,
        [dataclasses.asdict(m) for m in MODELS.values()],
    )


def _targets() -> _Listing:
    from edgemamba.presets import targets

    found = targets().values()
    rows = [[t.name, t.kind + (" (newest)" if t.newest else ""), t.format, t.runtime, t.title] for t in found]
    return ["name", "kind", "format", "runtime", "what"], rows, [t.model_dump(mode="json") for t in found]


def _devices() -> _Listing:
    from edgemamba.presets import devices

    found = devices().values()
    rows = [[d.name, d.cpu, d.memory, "yes" if d.measured else "not yet"] for d in found]
    return ["name", "CPU", "memory", "measured"], rows, [d.model_dump(mode="json") for d in found]


def _datasets() -> _Listing:
    from edgemamba.data import DATASETS

    found = DATASETS.values()
    rows = [[d.name, d.task, d.summary] for d in found]
    return ["name", "task", "what"], rows, [dataclasses.asdict(d) for d in found]


def _weights() -> _Listing:
    from edgemamba.sources import weights_table

    found = weights_table()
    rows = [[w.name, w.model, w.summary] for w in found]
    return ["name", "model", "what"], rows, [dataclasses.asdict(w) for w in found]


_TABLES = {
    "models": _models,
    "targets": _targets,
    "devices": _devices,
    "datasets": _datasets,
    "weights": _weights,
}
