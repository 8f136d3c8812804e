"""``edgemamba export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import typer

from edgemamba.cli.options import DATA_ROOT, FORCE, JSON, QUIET, SEED, given


def export(
    context: typer.Context,
    run: str | None = typer.Argument(None, help="A run folder. Default: the newest run.", show_default=False),
    target: str = typer.Option(..., "--target", help="A name or kind from: edgemamba list targets."),
    precision: str = typer.Option("fp32", "--precision", help="fp32, fp16 or int8."),
    weights: str | None = typer.Option(
        None,
        "--weights",
        help="Packaged weights in place of a run: edgemamba list weights. With --module: its .safetensors.",
        show_default=False,
    ),
    module: str | None = typer.Option(
        None, "--module", help="A network of another project: path/to/file.py:Class.", show_default=False
    ),
    kwargs: str | None = typer.Option(
        None,
        "--kwargs",
        help='Arguments of Class as JSON; "@torch.nn.LayerNorm" is that object.',
        show_default=False,
    ),
    shape: str | None = typer.Option(None, "--input", help="Input of Class, such as 1x3x224x224.", show_default=False),
    output_name: str | None = typer.Option(
        None,
        "--output",
        help="Which tensor Class returns: its position or key. Default: the first.",
        show_default=False,
    ),
    images: Path | None = typer.Option(
        None, "--images", help="Folder of images that verify and calibrate Class, or an import.", show_default=False
    ),
    artifact_format: str | None = typer.Option(
        None, "--format", help="onnx or tflite. Default: the target's.", show_default=False
    ),
    quantizer: str | None = typer.Option(
        None, "--quantizer", help="int8 ONNX: ort, nncf, or the nearer one (auto). Default: auto.", show_default=False
    ),
    calibration: int = typer.Option(64, "--calibration", help="Calibration images, from the training split."),
    verify_images: int = typer.Option(100, "--verify-images", help="Images on which artifacts are compared."),
    data_root: Path | None = DATA_ROOT,
    seed: int = SEED,
    out: Path | None = typer.Option(
        None,
        "--out",
        help="Bundle folder. Default: bundles/<model>-<target>-<precision>.",
        show_default=False,
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the plan and stop."),
    no_cache: bool = typer.Option(False, "--no-cache", help="Run every stage again."),
    force: bool = FORCE,
    quiet: bool = QUIET,
    as_json: bool = JSON,
) -> None:
    """Export a run to a Bundle for a board: export, verify, quantize, package.

    \b
    edgemamba export --target jetson
    edgemamba export runs/mine --target raspberry-pi-5 --precision int8 --out pi
    edgemamba export --weights lgg --target cpu
    edgemamba export --module vmamba.py:VSSM --kwargs '{"num_classes": 10}' --input 1x3x224x224 --target cpu
    """
    import shlex

    from edgemamba.cli import output
    from edgemamba.console import Console
    from edgemamba.errors import UsageError
    from edgemamba.files import read_json
    from edgemamba.foreign.source import open_module, parse
    from edgemamba.presets import find_target
    from edgemamba.sources import Source, open_source, with_images
    from edgemamba.stages import pipeline
    from edgemamba.stages.plan import DEFAULT_QUANTIZER, Options

    console = Console(quiet=quiet or as_json)
    chosen = find_target(target)
    source: Source
    if module is not None:
        if run is not None:
            raise UsageError("a run and --module exclude each other", hint="give one of them")
        source, notes = open_module(parse(module, kwargs, weights, shape, output_name, images, seed))
        for note in notes:
            console.warn(note)
    else:
        if own := set(given(context)) & {"--kwargs", "--input", "--output"}:
            raise UsageError(f"{', '.join(sorted(own))} needs --module", hint="--module path/to/file.py:Class")
        if run is not None and weights is not None:
            raise UsageError("a run and --weights exclude each other", hint="give one of them")
        source = with_images(open_source(weights or run), images)
    options = Options(
        format=cast(Any, artifact_format),
        quantizer=cast(Any, quantizer or DEFAULT_QUANTIZER),
        calibration=calibration,
        seed=seed,
        verify_images=verify_images,
        out=out,
        force=force,
        cache=not no_cache,
        data_root=data_root,
    )
    plan = pipeline.plan(source, chosen, cast(Any, precision), options)
    if dry_run:
        cached = pipeline.cached_steps(plan)
        if as_json:
            output.document(plan.document(cached))
        else:
            print("\n".join([*plan.lines(cached), f"Bundle: {plan.out}"]))
        return
    console.line(f"{source.name} ({source.model}) for {chosen.name}, {precision}")
    folder = pipeline.run(plan, console)
    if as_json:
        output.document({"out": str(folder), **read_json(folder / "manifest.json")})
    else:
        output.pairs([("Bundle", str(folder))])
    console.next(f"edgemamba profile {shlex.quote(str(folder))}" if out is not None else "edgemamba profile")
