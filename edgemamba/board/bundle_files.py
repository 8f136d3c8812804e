"""The files of a Bundle, read with suspicion: manifest, sizes and hashes, golden arrays.

Copied into every Bundle; needs the standard library and numpy, and Python 3.8.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import zipfile
from typing import Any

import numpy as np

SCHEMA = "edgemamba.bundle/1"
_REQUIRED = (
    "format",
    "runtime",
    "artifact",
    "inputs",
    "outputs",
    "preprocess",
    "threshold",
    "golden",
    "files",
)
_MAX_MANIFEST_BYTES = 4 << 20


class BundleError(Exception):
    """What went wrong, for a person: ``message`` and ``hint`` are one line each.

    ``exit_code``: 2 usage, 3 input or file, 4 a missing runtime, 5 not possible, 6 wrong results, 9 device.
    """

    def __init__(self, message: str, hint: str = "", exit_code: int = 3) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


def one_line(error: BaseException) -> str:
    """An exception's text on one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def load_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read ``manifest.json`` of a Bundle.

    Raises:
        BundleError: no Bundle here, not JSON, or a schema this runner does not know.
    """
    path = pathlib.Path(folder) / "manifest.json"
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} is larger than {_MAX_MANIFEST_BYTES} bytes: not a manifest")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{folder} is not a Bundle: no manifest.json there") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {one_line(error)}", "copy the Bundle again") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        seen = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise BundleError(
            f"{path} has schema {seen!r}, expected {SCHEMA!r}", "use the files of one Bundle only"
        )
    missing = [key for key in _REQUIRED if key not in document]
    if missing:
        raise BundleError(f"{path} lacks {', '.join(missing)}", "export the Bundle again")
    return document


def unsafe_name(name: str) -> str:
    """Why ``name`` may not be a file of a Bundle; empty when it may."""
    if not name or name.startswith("/") or "\\" in name or "\0" in name or name[1:2] == ":":
        return "is not a relative POSIX path"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has an empty, . or .. part"
    return ""


def hash_file(path: pathlib.Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def file_fault(folder: pathlib.Path, entry: dict[str, Any]) -> str:
    """How one listed file differs from its entry ``{path, bytes, sha256}``; empty when it does not."""
    name = str(entry["path"])
    reason = unsafe_name(name)
    if reason:
        return f"{name!r} {reason}"
    path = folder
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            return f"{name} is or lies behind a symbolic link"
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"{name} has {size} bytes, expected {entry['bytes']}"
    digest = hash_file(path)
    if digest != entry["sha256"]:
        return f"{name} has SHA-256 {digest[:12]}..., expected {str(entry['sha256'])[:12]}..."
    return ""


def manifest_fault(folder: pathlib.Path) -> str:
    """How ``manifest.json`` differs from its line in ``SHA256SUMS``; empty when it does not."""
    sums = folder / "SHA256SUMS"
    if sums.is_symlink() or not sums.is_file():
        return "SHA256SUMS is missing"
    lines = sums.read_text("utf-8", "replace").splitlines()
    wanted = [line[:64] for line in lines if line[64:] == "  manifest.json"]
    if wanted != [hash_file(folder / "manifest.json")]:
        return "manifest.json is not the one that SHA256SUMS names"
    return ""


def check_files(folder: str | os.PathLike[str], manifest: dict[str, Any]) -> None:
    """Compare every file of the Bundle with its size and SHA-256 in the manifest.

    Raises:
        BundleError: names every file that is missing or differs, and how.
    """
    root = pathlib.Path(folder)
    faults = [manifest_fault(root)] + [file_fault(root, entry) for entry in manifest["files"]]
    listed = {entry["path"] for entry in manifest["files"]}
    used = (manifest["artifact"], manifest["golden"]["file"])
    faults += [f"{name} is used but not listed" for name in used if name not in listed]
    faults = [fault for fault in faults if fault]
    if faults:
        raise BundleError(
            f"the Bundle is damaged: {'; '.join(faults)}", "copy it again from where it was made"
        )


def load_golden(folder: str | os.PathLike[str], manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of the golden file.

    ``images`` uint8 (n, h, w, 3); ``probability`` float32 (n, ceil(h/s), ceil(w/s)): the fp32 PyTorch model
    at every s-th pixel; ``mask`` uint8 (n, h, w) 0/1: that model's mask; ``stride``: s.

    Raises:
        BundleError: missing, damaged, or arrays of other shapes.
    """
    path = pathlib.Path(folder) / manifest["golden"]["file"]
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("images", "probability", "mask", "stride")}
        height, width = manifest["preprocess"]["size"]
        stride, count = int(arrays["stride"]), len(arrays["images"])
        bits = np.unpackbits(arrays["mask"], axis=1, count=height * width)
        arrays["mask"] = bits.reshape(count, height, width)
    except FileNotFoundError:
        raise BundleError(f"{path} is missing", "copy the Bundle again") from None
    except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} is damaged: {one_line(error)}", "copy the Bundle again") from None
    grid = (count, -(-height // stride), -(-width // stride))
    if (
        arrays["images"].shape != (count, height, width, 3)
        or arrays["probability"].shape != grid
        or not count
    ):
        shape = arrays["images"].shape
        raise BundleError(f"{path} holds images {shape}, the model takes (n, {height}, {width}, 3)")
    return arrays
