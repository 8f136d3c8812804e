"""Open a Bundle from inside the package: the board's own runner, its errors as edgemamba's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edgemamba.board import images, runner
from edgemamba.bundle.check import check
from edgemamba.errors import InputError, of_exit_code
from edgemamba.records import Manifest


@contextlib.contextmanager
def board_errors() -> Iterator[None]:
    """Turn the board files' own errors into EdgemambaErrors of the same exit code."""
    try:
        yield
    except runner.BundleError as error:
        raise of_exit_code(error.exit_code)(error.message, hint=error.hint) from None
    except images.ImageError as error:
        raise InputError(error.message, hint=error.hint) from None


def open_bundle(folder: Path, *, runtime: str = "auto", threads: int = 1) -> tuple[Manifest, runner.Session]:
    """Check a Bundle and load its model.

    Raises:
        InputError: not a Bundle, or damaged.
        MissingDependency: its runtime is not installed.
        Unsupported: the runtime cannot run this artifact.
    """
    manifest = check(folder)
    with board_errors():
        session = runner.open_session(folder, runner.load_manifest(folder), runtime, threads)
    return manifest, session
