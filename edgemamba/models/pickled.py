"""Checkpoint files of other programs: ``torch.save`` or safetensors, read without running any code of theirs."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch

from edgemamba.errors import InputError

_NOT_ALLOWED = re.compile(r"(?:unsupported global:? (?:global )?|but got (?:<class ')?)([\w.]+)", re.IGNORECASE)


def read_checkpoint(path: Path) -> Any:
    """What ``path`` holds: of safetensors a dict of tensors, of ``torch.save`` any nesting of plain values and tensors.

    ``torch.load`` runs with ``weights_only=True``: tensors, numbers (NumPy's too: training scripts save their losses as
    such), text and containers, no class of any program.

    Raises:
        InputError: missing, not a checkpoint, cut off, or one that holds objects whose code would have to run.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file", hint="name a .pth or .safetensors file")
    with path.open("rb") as stream:
        start = stream.read(4)
    if start[:2] != b"PK" and start[:1] != b"\x80":
        return _safetensors(path)
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file may break the reader anywhere; each kind below is the file's fault
        raise _fault(path, error) from None


def _numpy_scalars() -> list[Any]:
    """What a NumPy number is made of, under the names of NumPy 1 and 2."""
    scalar: Any = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    kinds = [getattr(np.dtypes, f"{kind}DType") for kind in ("Float64", "Float32", "Float16", "Int64", "Int32", "Bool")]
    return [*((scalar, name) for name in names), np.dtype, *kinds]


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except safetensors.SafetensorError as error:
        what = "is empty" if not path.stat().st_size else "is neither a whole torch.save nor a whole safetensors file"
        raise InputError(f"{path} {what} ({error})", hint="copy it again, or name the checkpoint itself") from None


def _fault(path: Path, error: Exception) -> InputError:
    text = str(error)
    named = _NOT_ALLOWED.search(text)
    if named or "weights_only" in text.lower():
        what = f": {named[1]}" if named else ""
        kind = "a TorchScript archive" if "TorchScript" in text else f"objects that need their own code to load{what}"
        return InputError(
            f"{path} holds {kind}; only tensors and plain values are read",
            hint="where you trust it, save its state dict alone: torch.save(model.state_dict(), path)",
        )
    with path.open("rb") as stream:
        half_a_zip = stream.read(2) == b"PK" and not zipfile.is_zipfile(path)
    if half_a_zip or isinstance(error, EOFError) or "unexpected EOF" in text or "truncated" in text:
        return InputError(f"{path} is cut off: it is not a whole checkpoint", hint="copy it again")
    reason = f"{type(error).__name__}: {text}".splitlines()[0][:120]
    return InputError(f"{path} is not a checkpoint of torch.save ({reason})", hint="name a .pth or .safetensors file")
