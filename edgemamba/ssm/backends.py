"""What computes the training scan on a device: mamba-ssm's kernels, this package's Triton kernels, tensor operations.

The first that can run is taken; ``EDGEMAMBA_SCAN`` names another. All compute the same function (``edgemamba doctor``
compares them).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import torch

from edgemamba.errors import Unsupported, UsageError, did_you_mean

Backend = Literal["mamba-ssm", "triton", "torch"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
ENVIRONMENT = "EDGEMAMBA_SCAN"
_forced: list[Backend] = []


@functools.cache
def lacks(name: Backend, device: str) -> str | None:
    """What the backend lacks for ``device``; None where it can run."""
    if name == "torch":
        return None
    if torch.device(device).type != "cuda":
        return "an NVIDIA GPU"
    if name == "mamba-ssm":
        # Its Python part installs without the compiled one.
        compiled = importlib.util.find_spec("mamba_ssm") and importlib.util.find_spec("selective_scan_cuda")
        return None if compiled else "the package mamba-ssm with its CUDA kernels"
    return _triton_lacks(device)


def _triton_lacks(device: str) -> str | None:
    """Triton compiles its launchers with the machine's C compiler."""
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "a GPU of compute capability 8.0 or newer"
    if importlib.util.find_spec("triton") is None:
        return "the package triton"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler (gcc or clang)"
    scheme = sysconfig.get_default_scheme()
    headers = sysconfig.get_path("include", "posix_prefix" if scheme == "posix_local" else scheme)
    return None if Path(headers, "Python.h").exists() else f"Python's headers ({headers}/Python.h)"


@torch.compiler.assume_constant_result
def backend(device: str | torch.device) -> Backend:
    """The backend for ``device``.

    Raises:
        UsageError: EDGEMAMBA_SCAN names no backend.
        Unsupported: it names one that cannot run here.
    """
    asked = _forced[-1] if _forced else os.environ.get(ENVIRONMENT)
    if not asked:
        return next(name for name in BACKENDS if lacks(name, str(device)) is None)
    for name in BACKENDS:
        if name == asked:
            missing = lacks(name, str(device))
            if missing is not None:
                raise Unsupported(f"{ENVIRONMENT}={asked} lacks {missing}", hint=f"unset {ENVIRONMENT}")
            return name
    raise UsageError(f"{ENVIRONMENT}={asked} is no scan backend", hint=did_you_mean(asked, BACKENDS))


@contextlib.contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Take this backend inside the block."""
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


def available(device: str) -> list[Backend]:
    """Every backend that can run on ``device``, the default first."""
    return [name for name in BACKENDS if lacks(name, device) is None]
