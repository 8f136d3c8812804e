"""``edgemamba import-weights``."""

from __future__ import annotations

from pathlib import Path

import typer

from edgemamba.cli.options import FORCE, JSON, QUIET


def import_weights(
    file: Path = typer.Argument(help="A published checkpoint: .pth of torch.save, or .safetensors."),
    model: str | None = typer.Option(
        None, "--model", help="Its network. Default: recognised by the tensors' shapes.", show_default=False
    ),
    bgr: bool = typer.Option(
        False, "--bgr", help="It was trained on B, G, R (cv2.imread): turn its first convolution to take R, G, B."
    ),
    size: int | None = typer.Option(
        None, "--size", help="Input height and width of exports, pixels. Default: the network's.", show_default=False
    ),
    out: Path | None = typer.Option(None, "--out", help="Folder to make. Default: runs/<file>.", show_default=False),
    force: bool = FORCE,
    quiet: bool = QUIET,
    as_json: bool = JSON,
) -> None:
    """Read a published UltraLight VM-UNet, U-Mamba or other checkpoint of a registered network.

    No code of the file is run (weights_only). evaluate, export and train --weights take the result; the data it was
    trained on is not known, so evaluate needs --data.

    \b
    edgemamba import-weights best.pth
    edgemamba import-weights umamba.pth --bgr --out runs/u-mamba
    edgemamba evaluate runs/u-mamba --data lgg --data-root lgg --split image
    """
    import shlex

    from edgemamba.cli import output
    from edgemamba.console import Console
    from edgemamba.importing import import_weights as run_import

    console = Console(quiet=quiet or as_json)
    folder = out or Path("runs") / file.stem
    record, also = run_import(
        file, folder, model=model, size=None if size is None else (size, size), bgr=bgr, force=force
    )
    if also and model is None:
        console.warn(f"{record.model} has the shapes of {', '.join(also)} too: give --model if it is another one")
    if as_json:
        output.document({"out": str(folder), **record.model_dump(mode="json", by_alias=True)})
    else:
        changes = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in record.changes.items())
        output.pairs(
            [
                ("imported", str(folder)),
                ("network", f"{record.model}, {record.parameters:,} parameters"),
                ("changes", changes or "none"),
            ]
        )
    console.next(f"edgemamba export {shlex.quote(str(folder))} --target jetson")
