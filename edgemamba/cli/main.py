"""Entry point: the verbs, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import typer

from edgemamba import __version__
from edgemamba.cli import demo, doctor, evaluate, export, inspect, listing, predict, profile, train
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

app = typer.Typer(
    name="edgemamba",
    help=_INTRO,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("profile")(profile.profile)
app.command("predict")(predict.predict)
app.command("inspect")(inspect.inspect)
app.command("list")(listing.listing)
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
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    if as_json:
        document: dict[str, Any] = {
            "schema": "edgemamba.error/1",
            "code": code,
            "message": message,
            "hint": hint,
        }
        print(json.dumps(document))
    return code


def _run(arguments: list[str], debug: bool, as_json: bool) -> int:
    try:
        result = app(args=arguments, standalone_mode=False)
    except EdgemambaError as error:
        if debug:
            traceback.print_exc()
        return _fail(error.exit_code, error.message, error.hint, as_json)
    except KeyboardInterrupt as interrupt:
        return _fail(130, str(interrupt) or "interrupted", "", as_json)
    except BrokenPipeError:
        return 0
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


def main() -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    sys.exit(_run([a for a in arguments if a != "--debug"], debug, "--json" in arguments))


if __name__ == "__main__":
    main()
