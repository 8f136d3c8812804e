"""``edgemamba demo``."""

from __future__ import annotations

from pathlib import Path

import typer

from edgemamba.cli.options import FORCE, JSON, QUIET, SEED


def demo(
    out: Path = typer.Option(Path("demo"), "--out", help="Folder of the run, the Bundles and the report."),
    epochs: int = typer.Option(12, "--epochs", help="Epochs of training on phantoms."),
    seed: int = SEED,
    force: bool = FORCE,
    quiet: bool = QUIET,
    as_json: bool = JSON,
) -> None:
    """Run the main job on built-in phantoms: train, export for three boards, profile here, write the report.

    \b
    edgemamba demo
    """
    from edgemamba.cli import output
    from edgemamba.console import Console
    from edgemamba.errors import require

    for module, extra in (("torch", "train"), ("onnx", "onnx"), ("onnxruntime", "onnx"), ("ai_edge_litert", "tflite")):
        require(module, extra)
    from edgemamba.demo import run_demo

    console = Console(quiet=quiet or as_json)
    done = run_demo(out, epochs, seed, force, console)
    if as_json:
        reports = [report.model_dump(mode="json", by_alias=True) for report in done.reports]
        output.document({"schema": "edgemamba.demo/1", "page": str(done.page), "reports": reports})
    else:
        output.pairs([("report", str(done.page)), ("Bundles", str(out / "bundles"))])
    console.next("open the report, then: edgemamba train --data lgg --data-root DIR --split patient")
