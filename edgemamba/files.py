"""Files that exist are complete: everything is written to a temporary name beside its place and renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgemamba.errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)
_TEMPORARY = re.compile(r"^\.(.+)\.(?:tmp|new|old)-[0-9]+$")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Around writing at ``path``.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InputError(
                f"no space left while writing {_final(path)}", hint="free some space; nothing half-written was kept"
            ) from None
        if error.errno in _REFUSED:
            raise InputError(
                f"cannot write {_final(path)}: {error.strerror}", hint="choose another place with --out"
            ) from None
        raise


def temporary_name(path: Path, kind: str = "tmp") -> Path:
    """The name beside ``path`` under which this process prepares it."""
    return path.with_name(f".{path.name}.{kind}-{os.getpid()}")


def _final(path: Path) -> Path:
    """``path`` as it will be called: people know nothing of temporary names."""
    return Path(*(_TEMPORARY.sub(r"\1", part) for part in path.parts))


@contextlib.contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make the folders above ``path``; those made here go again when the block fails and leaves them empty."""
    missing = [folder for folder in path.parents if not folder.exists()]
    file = next((folder for folder in path.parents if folder.is_file()), None)
    if file is not None:
        raise NotADirectoryError(errno.ENOTDIR, f"{file} is a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically, making its folder.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    write_together({path: data})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files that belong together: all of them, or, when one cannot be written, none.

    Raises:
        InputError: the disk is full or a place cannot be written.
    """
    written: list[tuple[Path, Path]] = []
    with contextlib.ExitStack() as stack:
        for path, data in contents.items():
            stack.enter_context(disk_errors(path))
            stack.enter_context(_parents(path))
            temporary = temporary_name(path)
            stack.callback(temporary.unlink, missing_ok=True)
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            written.append((temporary, path))
        for temporary, path in written:
            temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as strict JSON (no NaN), keys in their own order, atomically."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON document.

    Raises:
        InputError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None


def refuse_taken(path: Path, *, force: bool = False, marker: str | None = None) -> None:
    """Refuse to write a new folder at ``path`` where something is.

    Raises:
        InputError: ``path`` is a file, or a folder with something in it; with ``force``, one without ``marker``.
    """
    if path.is_file():
        raise InputError(f"{path} is a file", hint="choose another --out")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not force:
        hint = "choose another --out" + ("" if marker is None else ", or --force to replace it")
        raise InputError(f"{path} exists and is not empty", hint=hint)
    if marker is not None and not (path / marker).is_file():
        raise InputError(f"{path} is not replaced: it has no {marker}", hint="choose another --out, or empty it")


def refuse_unwritable(folder: Path) -> None:
    """Find out before long work whether files can be written into ``folder``; nothing of the trial stays.

    Raises:
        InputError: they cannot.
    """
    trial = temporary_name(folder / "trial")
    with contextlib.suppress(_Undone), disk_errors(folder), _parents(trial):
        try:
            trial.write_bytes(b"trial")
        finally:
            trial.unlink(missing_ok=True)
        raise _Undone


class _Undone(Exception):
    """Ends a trial, so that the folders made for it go."""


@contextlib.contextmanager
def new_folder(path: Path, *, force: bool = False, marker: str | None = None) -> Iterator[Path]:
    """Give a temporary folder that becomes ``path`` when the block ends without an error, and is removed otherwise.

    Args:
        path: folder to make.
        force: replace what is there, see :func:`refuse_taken`.
        marker: file by which a folder that may be replaced is known; None: any may.

    Raises:
        InputError: ``path`` is taken, or cannot be written.
    """
    refuse_taken(path, force=force, marker=marker)
    temporary = temporary_name(path)
    with disk_errors(path), _parents(path):
        temporary.mkdir()
        try:
            yield temporary
            if path.is_dir():
                old = temporary_name(path, "old")
                path.rename(old)
                temporary.rename(path)
                shutil.rmtree(old)
            else:
                temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(document: Any) -> str:
    """SHA-256 of a JSON document, independent of key order."""
    return sha256_bytes(json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
