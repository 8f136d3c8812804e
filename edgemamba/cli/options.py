"""Options that several verbs share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from edgemamba.registry import Task

JSON = typer.Option(False, "--json", help="Print one JSON document on stdout and nothing else there.")
QUIET = typer.Option(False, "--quiet", "-q", help="Only warnings and errors on stderr.")
FORCE = typer.Option(False, "--force", help="Replace what is at --out.")
SEED = typer.Option(0, "--seed", min=0, max=2**32 - 1, help="Seed of everything random.")
THREADS = typer.Option(0, "--threads", min=0, help="CPU threads; 0: all cores for training, 1 for inference.")
DATA = typer.Option(
    None,
    "--data",
    help="A name from: edgemamba list datasets. Default: what EDGEMAMBA_DATA holds, else generated images.",
    show_default=False,
)
DATA_ROOT = typer.Option(None, "--data-root", help="Folder of the data set [env EDGEMAMBA_DATA].", show_default=False)
GROUP = typer.Option(
    None,
    "--group",
    help="folder, classes: where the patient ends in a file stem: a separator, or a regular expression with a group.",
    show_default=False,
)


def given(context: typer.Context, *but: str) -> list[str]:
    """Flags of the options on the command line, those of the parameters ``but`` aside."""
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name not in but
        and getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
    ]


def data_source(
    name: str | None, root: Path | None, group: str | None, task: Task = "segmentation"
) -> tuple[str, Path | None, dict[str, Any]]:
    """Resolve --data, --data-root and EDGEMAMBA_DATA to what ``open_dataset`` takes.

    Raises:
        UsageError: an option that the chosen data set does not take.
        InputError: a root that holds no known layout.
    """
    from edgemamba.data import DATASETS, built_in, default_data
    from edgemamba.errors import UsageError, did_you_mean

    options: dict[str, Any] = {} if group is None else {"group": group}
    with_files = ", ".join(f"--data {info.name}" for info in DATASETS.values() if info.needs_root)
    if name is None and root is None:
        found = default_data()
        name, root = found if found is not None else (built_in(task), None)
    elif name is None:
        raise UsageError("--data-root needs --data", hint=f"one of: {with_files}")
    if name not in DATASETS:
        raise UsageError(f"no data set is named {name!r}", hint=did_you_mean(name, DATASETS))
    needs_root = DATASETS[name].needs_root
    if root is None and needs_root:
        found = default_data()
        if found is None:
            raise UsageError(f"--data {name} needs --data-root", hint="--data-root DIR, or set EDGEMAMBA_DATA")
        root = found[1]
    if root is not None and not needs_root:
        raise UsageError(f"{name} are made on the spot and take no --data-root", hint=f"one of: {with_files}")
    if options and name not in ("folder", "classes"):
        raise UsageError(f"--group does not apply to {name}", hint="--data folder, or --data classes")
    return name, root, options
