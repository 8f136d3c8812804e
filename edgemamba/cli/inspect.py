"""``edgemamba inspect``."""

from __future__ import annotations

import typer

from edgemamba.cli.options import JSON


def inspect(
    subject: str = typer.Argument(help="A model name, a run folder or a Bundle folder."),
    size: int | None = typer.Option(
        None,
        "--size",
        help="Input height and width for a model name, pixels. Default: the model's.",
        show_default=False,
    ),
    as_json: bool = JSON,
) -> None:
    """Show parameters, multiply-accumulates, scan shapes, files, sizes and provenance.

    \b
    edgemamba inspect ul-vm-unet
    edgemamba inspect bundles/ul-vm-unet-cpu-fp32 --json
    """
    from edgemamba.cli import output
    from edgemamba.stages.inspect import inspect_subject

    document = inspect_subject(subject, None if size is None else (size, size))
    if as_json:
        output.document(document)
        return
    simple = [(k, str(v)) for k, v in document.items() if not isinstance(v, dict | list)]
    output.pairs(simple)
    for key, value in document.items():
        if isinstance(value, dict) and value:
            print(f"\n{key}")
            output.pairs((f"  {k}", f"{v:,}" if isinstance(v, int) else str(v)) for k, v in value.items())
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"\n{key}")
            columns = list(value[0])
            output.table(columns, [[str(row.get(c, "")) for c in columns] for row in value])
