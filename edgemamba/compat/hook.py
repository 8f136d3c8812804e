"""``installed``: the names of mamba_ssm, causal_conv1d, selective_scan and their kernels, for one block of code."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgemamba.compat.names import MODULES, PACKAGES, ROOTS, contents, passed_on

_INSTALLED = {"site-packages", "dist-packages"}
_KERNELS = "mamba_ssm.ops"


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves the modules of ``names.MODULES`` before any that are installed.

    A project that ships its own fork of mamba_ssm keeps the fork's blocks and models; only ``mamba_ssm.ops``, which
    needs compiled kernels, is served.

    Attributes:
        provided: names of the modules served so far, in order.
        kept: names of the modules left to the project's fork.
    """

    def __init__(self) -> None:
        self.provided: list[str] = []
        self.kept: list[str] = []
        # A real triton is better than the one here, which only lets kernels be defined.
        self._roots = ROOTS - {"triton"} if importlib.util.find_spec("triton") else ROOTS

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The import system's question; None leaves the name to the others."""
        del target
        root = fullname.partition(".")[0]
        if fullname not in MODULES or root not in self._roots or (root == "triton" and _asked_by_torch()):
            return None
        own = _of_the_project(fullname, path)
        if own is not None and not fullname.startswith(_KERNELS):
            self.kept.append(fullname)
            return None
        spec = importlib.machinery.ModuleSpec(fullname, self, is_package=fullname in PACKAGES)
        if own is not None and own.submodule_search_locations and spec.submodule_search_locations is not None:
            # What a fork has beside the modules served here.
            spec.submodule_search_locations.extend(own.submodule_search_locations)
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Python's own module object."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Fill in the names."""
        name = module.__name__
        self.provided.append(name)
        module.__dict__.update(contents(name))
        module.__dict__.setdefault("__version__", "0+edgemamba")
        if name.startswith("mamba_ssm."):
            module.__dict__["__getattr__"] = passed_on
        if name.startswith("triton.language"):
            from edgemamba.compat.kernels import Name

            module.__dict__["__getattr__"] = lambda attribute: _plain(attribute, Name(f"tl.{attribute}"))


def _of_the_project(fullname: str, path: Sequence[str] | None) -> importlib.machinery.ModuleSpec | None:
    """A project's own fork of mamba_ssm: found on the path, but not among installed packages."""
    if fullname.partition(".")[0] != "mamba_ssm":
        return None
    spec = importlib.machinery.PathFinder.find_spec(fullname, path)
    origin = None if spec is None else spec.origin
    return spec if origin is not None and not _INSTALLED & set(Path(origin).parts) else None


def _plain(attribute: str, value: Any) -> Any:
    if attribute.startswith("__"):
        raise AttributeError(attribute)
    return value


def _asked_by_torch() -> bool:
    """PyTorch looks for Triton too, and would compile with it."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("importlib"):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "torch"


def _ours(name: str) -> bool:
    return name.partition(".")[0] in ROOTS


@contextlib.contextmanager
def installed(*, prefer_real: bool = False) -> Iterator[Finder]:
    """Inside the block, ``import mamba_ssm`` and the rest of ``names.MODULES`` give this package's functions.

    Modules that were imported already keep what they have. After the block the provided modules are gone from
    ``sys.modules``; what was imported inside goes on working.

    Args:
        prefer_real: change nothing where mamba-ssm is installed with its CUDA kernels and a GPU is there: they are
            faster in training.

    Yields:
        The finder; ``provided`` says which modules were served.
    """
    finder = Finder()
    if prefer_real and _real():
        yield finder
        return
    before = {name: module for name, module in sys.modules.items() if _ours(name) and not _real_triton(name, finder)}
    for name in before:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield finder
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _ours(name) and not _real_triton(name, finder)]:
            del sys.modules[name]
        sys.modules.update(before)


def _real_triton(name: str, finder: Finder) -> bool:
    return name.partition(".")[0] == "triton" and "triton" not in finder._roots


def _real() -> bool:
    """Whether mamba-ssm can compute here."""
    import torch

    kernels = ("mamba_ssm", "selective_scan_cuda")
    return torch.cuda.is_available() and all(importlib.util.find_spec(name) is not None for name in kernels)
