"""``edgemamba predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from edgemamba.cli.options import JSON, QUIET, THREADS


def predict(
    subject: str = typer.Argument(help="A Bundle folder, a run folder, or the name of packaged weights."),
    images: list[Path] = typer.Argument(help="Images of any size: TIFF, PNG, JPEG, GIF, BMP, WebP; or .npy."),
    out: Path = typer.Option(Path("predictions"), "-o", "--out", help="Folder for the results."),
    threshold: float | None = typer.Option(
        None, "--threshold", help="Segmentation: of a mask. Default: the Bundle's.", show_default=False
    ),
    runtime: str = typer.Option("auto", "--runtime", help="auto, onnxruntime, litert or tensorrt."),
    threads: int = THREADS,
    quiet: bool = QUIET,
    as_json: bool = JSON,
) -> None:
    """Run a deployed artifact, or a trained run, on images.

    Segmentation gives masks (0/255 PNG at the image's own size) and overlays, classification the best classes and
    classes.csv, another project's network the output as .npy (and takes .npy). Research use only; not a medical
    device.

    \b
    edgemamba predict bundles/ul-vm-unet-cpu-fp32 scan.tif -o out
    edgemamba predict runs/resnet9 picture.png
    """
    from edgemamba.cli import output
    from edgemamba.console import Console
    from edgemamba.evaluation.predict import predict_images

    console = Console(quiet=quiet or as_json)
    results = predict_images(subject, images, out, console, threshold=threshold, runtime=runtime, threads=threads or 1)
    if as_json:
        output.document({"schema": "edgemamba.predict/1", "out": str(out), "images": results})
    else:
        output.table(*_table(results))


def _table(results: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows for people; the keys tell the task."""
    if "mask" in results[0]:
        rows = [[r["image"], f"{r['width']}x{r['height']}", f"{r['foreground_share']:.2%}", r["mask"]] for r in results]
        return ["image", "size", "foreground", "mask"], rows
    if "classes" in results[0]:
        best = [[f"{one['name']} {one['probability']:.4f}" for one in r["classes"]] for r in results]
        return ["image", "best", "and then"], [
            [r["image"], names[0], ", ".join(names[1:])] for r, names in zip(results, best, strict=True)
        ]
    rows = [
        [r["image"], "x".join(map(str, r["shape"])), f"{r['min']:.4g} to {r['max']:.4g}", r["output"]] for r in results
    ]
    return ["image", "shape", "values", "output"], rows
