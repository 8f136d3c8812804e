"""What a user can be told went wrong.

EdgemambaError                 exit code
├── UsageError                 2   the command line
├── InputError                 3   data, configuration, checksum, a file that is not what it should be
├── MissingDependency          4   a package, tool or permission; the hint is the command that mends it
├── Unsupported                5   an operator, target, precision or input size
├── VerificationError          6   parity, golden vectors, retention bar
├── BudgetError                7   latency, size, memory or accuracy over its limit
├── MeasurementError           8   too few or too noisy samples
└── DeviceError                9   device unreachable or failed

Exit code 1 is an internal error, 130 an interrupt. The command line prints ``message`` and ``hint``, one line each; a
traceback only with ``--debug``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgemambaError(Exception):
    """Root of every error meant for a user.

    Args:
        message: one line: what is wrong, where, the value seen and the value expected.
        hint: one line: what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EdgemambaError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class InputError(EdgemambaError):
    """A file, data set or configuration is missing, damaged or not what it should be."""

    exit_code = 3


class MissingDependency(EdgemambaError):
    """A package or tool is not installed."""

    exit_code = 4


class Unsupported(EdgemambaError):
    """The target, precision, operator or input size is not possible."""

    exit_code = 5


class VerificationError(EdgemambaError):
    """An artifact does not compute what its source computes."""

    exit_code = 6


class BudgetError(EdgemambaError):
    """A measured value is over its limit."""

    exit_code = 7


class MeasurementError(EdgemambaError):
    """A measurement cannot be trusted."""

    exit_code = 8


class DeviceError(EdgemambaError):
    """A device is unreachable or failed."""

    exit_code = 9


def of_exit_code(code: object) -> type[EdgemambaError]:
    """The kind of error that ends with ``code``, as the board's scripts tell it; DeviceError for any other."""
    kinds = (UsageError, InputError, MissingDependency, Unsupported, VerificationError)
    return next((kind for kind in kinds if kind.exit_code == code), DeviceError)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Hint for a misspelt ``name``: close matches, else every known name."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names)}"


def require(module: str, extra: str) -> None:
    """Raise MissingDependency with the pip line unless ``module`` can be found (it is not imported)."""
    import importlib.util

    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise MissingDependency(
            f"this needs the package {module.split('.')[0]}, which is not installed",
            hint=f'pip install "edgemamba[{extra}]"',
        )
