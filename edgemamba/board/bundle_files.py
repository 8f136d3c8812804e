"""The files of a Bundle, read with suspicion: manifest, sizes and hashes, golden arrays.

Copied into every Bundle; needs the standard library and numpy, and Python 3.8.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

# The second has tasks other than segmentation; everything the first says is read the same way.
SCHEMAS = ("edgemamba.bundle/1", "edgemamba.bundle/2")
TASKS = ("segmentation", "classification", "tensor")
_MAX_MANIFEST_BYTES = 4 << 20
_MAX_GOLDEN_BYTES = 256 << 20
_MAX_SIDE = 8192


# What zipfile and numpy raise on damaged bytes.
_DAMAGE = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    ArithmeticError,
    OSError,
    EOFError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)


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
    if not isinstance(document, dict) or document.get("schema") not in SCHEMAS:
        seen = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise BundleError(f"{path} has schema {seen!r}, expected {SCHEMAS[-1]!r}", "use the files of one Bundle only")
    try:
        _require_parts(document)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise BundleError(f"{path} is not a valid manifest: {reason}", "export the Bundle again") from None
    return document


def _require_parts(document: dict[str, Any]) -> None:
    """Touch everything that the scripts use, so that they meet no surprise later."""
    texts = [document[key] for key in ("name", "format", "runtime", "artifact")]
    height, width = document["preprocess"]["size"]
    sides = [height, width]
    for tensor in (document["inputs"][0], document["outputs"][0]):
        texts += [tensor["name"], tensor["layout"]]
        sides += tensor["shape"]
    texts.append(document["golden"]["file"])
    texts += document.get("labels", [])
    task = document.get("task", "segmentation")
    if task not in TASKS:
        raise ValueError(f"{task!r} is no task of these files")
    numbers = [document["preprocess"]["scale"], document["golden"]["mean_tolerance"]]
    numbers.append(document["golden"]["agreement" if "agreement" in document["golden"] else "mask_agreement"])
    if task == "segmentation":
        numbers.append(document["threshold"])
    if task == "classification" and len(document.get("labels", [])) not in (0, document["outputs"][0]["shape"][-1]):
        raise ValueError(f"{len(document['labels'])} labels for {document['outputs'][0]['shape']}")
    for entry in document["files"]:
        texts += [entry["path"], entry["sha256"]]
        numbers.append(entry["bytes"])
    for value in texts:
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is not a text")
    for value in numbers:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{value!r} is not a number")
    for value in sides:
        if type(value) is not int or not 0 < value <= _MAX_SIDE:
            raise ValueError(f"{value!r} is not a side of 1 to {_MAX_SIDE}")
    channels_first(document["inputs"][0])
    if document["format"] not in ("onnx", "tflite"):
        raise ValueError(f"{document['format']!r} is neither onnx nor tflite")
    if document.get("onnxruntime_level", "all") not in ("all", "extended"):
        raise ValueError(f"{document['onnxruntime_level']!r} is no optimisation level")


def channels_first(tensor: dict[str, Any]) -> tuple[int, int, int, int]:
    """Shape (1, channels, h, w) of an input, however the artifact stores it."""
    one, *rest = tensor["shape"]
    channels, height, width = (rest[2], rest[0], rest[1]) if tensor["layout"] == "NHWC" else rest
    return one, channels, height, width


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
        raise BundleError(f"the Bundle is damaged: {'; '.join(faults)}", "copy it again from where it was made")


def load_golden(folder: str | os.PathLike[str], manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of the golden file.

    ``images`` uint8 (n, h, w, channels) and ``stride``: s. Of segmentation ``probability`` float32
    (n, ceil(h/s), ceil(w/s)), the fp32 PyTorch model at every s-th pixel, and ``mask`` uint8 (n, h, w) 0/1; of
    other tasks ``output`` float32 (n, m), every s-th of the model's values.

    Raises:
        BundleError: missing, damaged, or arrays of other shapes.
    """
    name = manifest["golden"]["file"]
    if unsafe_name(name):
        raise BundleError(f"{name!r} {unsafe_name(name)}")
    path = pathlib.Path(folder) / name
    try:
        return _golden_arrays(path, manifest)
    except FileNotFoundError:
        raise BundleError(f"{path} is missing", "copy the Bundle again") from None
    except _DAMAGE as error:
        raise BundleError(f"{path} is damaged: {one_line(error)}", "copy the Bundle again") from None


def _golden_arrays(path: pathlib.Path, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    output: Any = importlib.import_module(f"{__package__}.outputs" if __package__ else "outputs").open_output(manifest)
    _, channels, height, width = channels_first(manifest["inputs"][0])
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _MAX_GOLDEN_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, at most {_MAX_GOLDEN_BYTES} are read")
    with np.load(path, allow_pickle=False) as loaded:
        count, stride = len(loaded["images"]), int(loaded["stride"])
        if count < 1 or stride < 1:
            raise ValueError(f"it holds {count} images at stride {stride}")
        expected = {"images": (np.uint8, (count, height, width, channels))}
        expected.update(output.golden_arrays(count, stride))
        arrays = {key: loaded[key] for key in (*expected, "stride")}
    for key, (dtype, shape) in expected.items():
        if arrays[key].dtype != dtype or arrays[key].shape != shape:
            seen = f"{arrays[key].dtype} {arrays[key].shape}"
            raise ValueError(f"{key} is {seen}, the model takes {np.dtype(dtype)} {shape}")
    output.unpack(arrays)
    return arrays
