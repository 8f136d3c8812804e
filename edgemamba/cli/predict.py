"""``edgemamba predict``."""

from __future__ import annotations

from pathlib import Path

import typer

from edgemamba.cli.options import JSON, QUIET, THREADS


def predict(
    bundle: Path = typer.Argument(help="A Bundle folder."),
    images: list[Path] = typer.Argument(help="Images of any size: TIFF, PNG, JPEG, GIF, BMP, WebP."),
    out: Path = typer.Option(Path("predictions"), "-o", "--out", help="Folder for masks and overlays."),
    threshold: float | None = typer.Option(None, "--threshold", help="Default: the Bundle's.", show_default=False),
    runtime: str = typer.Option("auto", "--runtime", help="auto, onnxruntime, litert or tensorrt."),
    threads: int = THREADS,
    quiet: bool = QUIET,
    as_json: bool = JSON,
) -> None:
    """Segment images with a deployed artifact: masks (0/255 PNG at the image's own size) and overlays.

    Research use only; not a medical device.

    \b
    edgemamba predict bundles/ul-vm-unet-cpu-fp32 scan.tif -o out
    """
    from edgemamba.cli import output
    from edgemamba.console import Console
    from edgemamba.evaluation.predict import predict_images

    console = Console(quiet=quiet or as_json)
    results = predict_images(bundle, images, out, console, threshold=threshold, runtime=runtime, threads=threads or 1)
    if as_json:
        output.document({"schema": "edgemamba.predict/1", "out": str(out), "images": results})
    else:
        output.table(
            ["image", "size", "foreground", "mask"],
            [[r["image"], f"{r['width']}x{r['height']}", f"{r['foreground_share']:.2%}", r["mask"]] for r in results],
        )
