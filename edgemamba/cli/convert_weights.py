"""``edgemamba convert-weights``."""

from __future__ import annotations

from pathlib import Path

import typer

from edgemamba.cli.options import FORCE, JSON, QUIET


def convert_weights(
    file: Path = typer.Argument(help="A checkpoint of torch.save: .pth, .pt, .bin, .ckpt."),
    out: Path = typer.Argument(help="The .safetensors to write."),
    key: str | None = typer.Option(
        None, "--key", help="Entry that holds the tensors, such as model or a.b. Default: found.", show_default=False
    ),
    force: bool = FORCE,
    quiet: bool = QUIET,
    as_json: bool = JSON,
) -> None:
    """Convert another project's checkpoint for export --module --weights; none of its code is run (weights_only).

    \b
    edgemamba convert-weights best.pth best.safetensors
    edgemamba convert-weights run.ckpt net.safetensors --key state_dict
    """
    import dataclasses
    import shlex

    from edgemamba.cli import output
    from edgemamba.console import Console
    from edgemamba.errors import require
    from edgemamba.files import refuse_taken

    require("torch", "train")
    from edgemamba.foreign.convert import convert

    refuse_taken(out, force=force)
    console = Console(quiet=quiet or as_json)
    found = convert(file, out, key)
    if as_json:
        output.document({"out": str(out), **dataclasses.asdict(found)})
    else:
        output.pairs([("weights", str(out)), *found.lines()])
    console.next(
        f"edgemamba export --module FILE.py:CLASS --weights {shlex.quote(str(out))} --input 1x3xHxW --target cpu"
    )
