"""``edgemamba profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from edgemamba.cli.options import DATA_ROOT, JSON, QUIET


def profile(
    bundles: list[Path] | None = typer.Argument(None, help="Bundle folders. Default: the newest.", show_default=False),
    device: str = typer.Option("host", "--device", help="host, or with --samples the board they are from."),
    samples: Path | None = typer.Option(
        None, "--samples", help="agent.jsonl that the Bundle's agent.py wrote on a board.", show_default=False
    ),
    runtime: str = typer.Option("auto", "--runtime", help="auto, onnxruntime, litert or tensorrt."),
    threads: int = typer.Option(1, "--threads", help="CPU threads of the runtime."),
    processes: int = typer.Option(5, "--processes", help="Fresh processes to measure in."),
    quick: bool = typer.Option(False, "--quick", help="Two short processes: a look, never a valid measurement."),
    images: int | None = typer.Option(
        None, "--images", help="Held-out images to score. Default: all, up to 400.", show_default=False
    ),
    run: Path | None = typer.Option(
        None, "--run", help="The run that was exported. Default: found by its weights.", show_default=False
    ),
    data_root: Path | None = DATA_ROOT,
    pictures: bool = typer.Option(
        True, "--pictures/--no-pictures", help="Whether the report shows images of the data set."
    ),
    strict: bool = typer.Option(False, "--strict", help="Exit with 8 when the measurement is in doubt."),
    budget: Path | None = typer.Option(
        None, "--budget", help="TOML file of limits; exit with 7 when one is not kept.", show_default=False
    ),
    out: Path | None = typer.Option(
        None, "--out", help="Report folder. Default: <bundle>-report beside the Bundle.", show_default=False
    ),
    quiet: bool = QUIET,
    as_json: bool = JSON,
) -> None:
    """Measure a Bundle: golden check, cold start, latency, memory, size, accuracy retention; write a report.

    Several Bundles are measured one after the other and compared on one page.

    \b
    edgemamba profile
    edgemamba profile bundles/ul-vm-unet-cpu-fp32 --json
    edgemamba profile bundles/pi --samples agent.jsonl --device raspberry-pi-5
    """
    from edgemamba.cli import output
    from edgemamba.console import Console
    from edgemamba.errors import BudgetError, MeasurementError
    from edgemamba.profiling.budget import load_budget, violations
    from edgemamba.profiling.options import ProfileOptions
    from edgemamba.profiling.several import profile_all

    console = Console(quiet=quiet or as_json)
    limits = None if budget is None else load_budget(budget)
    settings: dict[str, Any] = {} if pictures else {"disagreements": 0}
    options = ProfileOptions(
        device=device,
        samples=samples,
        runtime=runtime,
        threads=threads,
        processes=processes,
        quick=quick,
        images=images,
        run=run,
        data_root=data_root,
        **settings,
    )
    done = profile_all(bundles or [], options, out, console)
    if as_json:
        documents = [report.model_dump(mode="json", by_alias=True) for report in done.reports]
        output.document(documents[0] if len(documents) == 1 else {"reports": documents})
    else:
        output.pairs([("report", str(done.page))])
    console.next("copy the Bundle folder to the board; its README.md says how to run it")
    doubtful = [report.subject.name for report in done.reports if not report.valid]
    if strict and doubtful:
        raise MeasurementError(
            f"in doubt: {', '.join(doubtful)}", hint="the report says why and what to do about each reason"
        )
    over = (
        [] if limits is None else [f"{r.subject.name}: {text}" for r in done.reports for text in violations(r, limits)]
    )
    if over:
        raise BudgetError(f"over budget: {'; '.join(over)}", hint="the report has every figure with its interval")
