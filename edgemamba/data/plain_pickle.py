"""Pickles of plain values and numpy arrays, and nothing else: the one place where a pickle is read.

A pickle is a program. Here it may build dictionaries, lists, strings, bytes and numbers, which needs no name at all,
and call the three names that numpy's arrays are made of; any other name is refused before it is looked up, so nothing
of the file's choice is ever imported or called.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemamba.errors import InputError

# What a damaged pickle makes the unpickler raise.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)


class _Refused(Exception):
    """The pickle names something else."""


def load_plain(path: Path) -> Any:
    """Read a pickle; strings of Python 2 come as bytes.

    Raises:
        InputError: the file cannot be read, is damaged, or wants more than plain values and arrays.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except _Refused as error:
        raise InputError(
            f"{path} is refused: its pickle wants to call {error}, which could run code",
            hint="it is no file of this data set: download the data again from its publisher",
        ) from None
    except _DAMAGE as error:
        raise InputError(
            f"{path} is damaged: {type(error).__name__} at reading its pickle", hint="unpack or download it again"
        ) from None


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in old pickles; latin-1 only."""
    if encoding not in ("latin1", b"latin1"):
        raise _Refused(f"_codecs.encode with {encoding!r}")
    return text.encode("latin-1")


def _reconstruct(kind: type[NDArray[Any]], _shape: Any, _code: Any) -> NDArray[Any]:
    """An empty array, which the pickle's state then fills."""
    if kind is not np.ndarray:
        raise _Refused("numpy's _reconstruct with something else than an array")
    return np.ndarray((0,), np.uint8)


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """One of the allowed names."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, _id: Any) -> Any:
        """Nothing."""
        raise _Refused("an object outside the file")
