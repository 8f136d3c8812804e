"""Entry point: the verbs, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from edgemamba import __version__
from edgemamba.cli import (
    convert_weights,
    demo,
    doctor,
    evaluate,
    export,
    import_weights,
    inspect,
    listing,
    output,
    predict,
    profile,
    train,
)
from edgemamba.errors import EdgemambaError

_INTRO = """Take a compact Mamba vision model from training to a measured artifact on an edge board.

Quick start, no data needed:

    \b
    edgemamba train
    edgemamba export --target raspberry-pi
    edgemamba profile

Exit codes: 0 done, 1 internal error, 2 usage, 3 bad input, 4 missing package or permission, 5 unsupported,
6 verification failed, 7 over budget, 8 measurement invalid, 9 device failed, 130 interrupted. --debug shows
tracebacks.
"""


class _Interrupted(Exception):
    """Ctrl-C, with what is kept: typer itself would end without a word."""


class _ReaderGone(Exception):
    """Whoever reads stdout has seen enough."""


class _Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise _Interrupted(str(interrupt)) from None
        except BrokenPipeError:
            raise _ReaderGone from None


app = typer.Typer(
    name="edgemamba",
    cls=_Verbs,
    help=_INTRO,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("profile")(profile.profile)
app.command("predict")(predict.predict)
app.command("inspect")(inspect.inspect)
app.command("list")(listing.listing)
app.command("convert-weights")(convert_weights.convert_weights)
app.command("import-weights")(import_weights.import_weights)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def _show_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    del version


def _fail(code: int, message: str, hint: str, as_json: bool) -> int:
    message, hint = (" ".join(text.split()) for text in (message, hint))
    with contextlib.suppress(OSError):
        print(f"error: {message}", file=sys.stderr)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
    if as_json and not output.has_document():
        with contextlib.suppress(OSError):
            output.document({"schema": "edgemamba.error/1", "code": code, "message": message, "hint": hint})
    return code


def _run(arguments: list[str], debug: bool, as_json: bool) -> int:
    try:
        result = app(args=arguments, standalone_mode=False)
    except EdgemambaError as error:
        if debug:
            traceback.print_exc()
        return _fail(error.exit_code, error.message, error.hint, as_json)
    except (KeyboardInterrupt, _Interrupted) as interrupt:
        return _fail(130, str(interrupt) or "interrupted", "", as_json)
    except _ReaderGone:
        return 0
    except OSError as error:  # full disk, no permission, no such folder: what no verb foresaw
        if debug:
            traceback.print_exc()
        place = "" if error.filename is None else f"{error.filename}: "
        return _fail(3, f"{place}{error.strerror or error}", "run again with --debug to see where", as_json)
    except Exception as error:  # the process border: everything else is a bug, or typer's own usage error
        if debug:
            traceback.print_exc()
        usage = getattr(error, "format_message", None)
        if usage is not None:
            context = getattr(error, "ctx", None)
            verb = context.command_path if context is not None else "edgemamba"
            return _fail(int(getattr(error, "exit_code", 2)), usage(), f"{verb} --help", as_json)
        if type(error).__name__ == "Abort":
            return _fail(130, "interrupted", "", as_json)
        return _fail(
            1,
            f"internal error: {type(error).__name__}: {error}",
            "run again with --debug for the traceback",
            as_json,
        )
    return result if isinstance(result, int) else 0


def _open_standard_streams() -> None:
    """A stream that the caller closed leads nowhere; else the next file opened would get its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        if descriptor == 1:
            sys.stdout = os.fdopen(descriptor, "w", closefd=False)
        elif descriptor == 2:
            sys.stderr = os.fdopen(descriptor, "w", closefd=False)
    os.close(descriptor)


def main() -> None:
    """Run the command line and exit with its code."""
    _open_standard_streams()
    arguments = sys.argv[1:]
    debug, as_json = "--debug" in arguments, "--json" in arguments
    code = _run([a for a in arguments if a != "--debug"] or ["--help"], debug, as_json)
    try:
        sys.stdout.flush()
    except OSError as error:
        # What is still buffered would fail again, with a traceback, when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            code = _fail(3, f"stdout: {error.strerror}", "free some space", as_json=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
