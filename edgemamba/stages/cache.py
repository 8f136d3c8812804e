"""Content-hash cache of stages: the key covers everything a stage reads, so a hit is the same result.

A key is the SHA-256 of a JSON document: hashes of the input bytes, all parameters, the versions of the
tools, and the hash of edgemamba's own code that does the work. Weak keys give wrong results
(microsoft/Olive#1936: two models shared one entry), so nothing is left out and the hash is never shortened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from edgemamba import __version__
from edgemamba.errors import InputError
from edgemamba.files import new_folder, read_json, sha256_bytes, sha256_file, sha256_json, write_json
from edgemamba.versions import package_version

_RECORD = "stage.json"
# Parts of the package that decide what a stage writes; compat is what networks of other projects compute with.
_CODE = ("models", "ssm", "compat", "foreign", "stages", "tasks", "board")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a stage made, or what the cache held of it."""

    folder: Path
    facts: dict[str, Any]
    seconds: float
    cached: bool


class Cache:
    """A folder of finished stages, one sub-folder per key."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, key: str) -> Result | None:
        """The entry of ``key``, if it is complete and its files are the ones that were written."""
        folder = self.root / key
        try:
            record = read_json(folder / _RECORD)
            whole = all(sha256_file(folder / name) == digest for name, digest in record["files"].items())
            if not whole or record["key"] != key:
                return None
            return Result(folder, record["facts"], record["seconds"], True)
        except (InputError, OSError, KeyError, TypeError, AttributeError):
            return None

    def run(self, key: str, work: Callable[[Path], dict[str, Any]]) -> Result:
        """Take ``key`` from the cache, or let ``work(folder)`` write its files and return its facts.

        An error in ``work`` leaves nothing behind.
        """
        found = self.find(key)
        if found is not None:
            return found
        started = time.perf_counter()
        with new_folder(self.root / key, force=True) as folder:
            facts = work(folder)
            seconds = time.perf_counter() - started
            files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
            write_json(folder / _RECORD, {"key": key, "files": files, "facts": facts, "seconds": seconds})
        return Result(self.root / key, facts, seconds, False)


def cache_root() -> Path:
    """Where stages are kept: $EDGEMAMBA_CACHE, else ~/.cache/edgemamba."""
    return Path(os.environ.get("EDGEMAMBA_CACHE") or Path.home() / ".cache" / "edgemamba") / "stages"


@contextlib.contextmanager
def open_cache(*, enabled: bool = True) -> Iterator[Cache]:
    """The user's cache, or one that is thrown away at the end.

    Raises:
        InputError: the cache folder cannot be written.
    """
    if not enabled:
        folder = Path(tempfile.mkdtemp(prefix="edgemamba-"))
        try:
            yield Cache(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot use the cache folder {root}: {error.strerror}",
            hint="set EDGEMAMBA_CACHE, or use --no-cache",
        ) from None
    yield Cache(root)


def cache_key(stage: str, inputs: dict[str, str], parameters: dict[str, Any], tools: Iterable[str]) -> str:
    """Hash of everything ``stage`` depends on.

    Args:
        stage: its name.
        inputs: SHA-256 of every input, by role.
        parameters: all of them, JSON-able.
        tools: distributions whose version matters.
    """
    document = {
        "stage": stage,
        "inputs": inputs,
        "parameters": parameters,
        "tools": tool_versions(tools),
        "code": _code_hash(),
    }
    return sha256_json(document)


def tool_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution (nothing is imported), and of edgemamba."""
    return {"edgemamba": __version__, **{name: package_version(name) or "missing" for name in names}}


@functools.cache
def _code_hash() -> str:
    package = Path(__file__).parent.parent
    files = sorted(path for part in _CODE for path in (package / part).glob("*.py"))
    return sha256_json({path.relative_to(package).as_posix(): sha256_bytes(path.read_bytes()) for path in files})
