"""Import one Python file of another project where it lies, with its siblings and its package.

The file may import modules of its own folder, of the folders above it and of its package, by absolute or relative
names. Where the package's ``__init__`` cannot be imported (it often pulls in training code), the file is imported
without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgemamba.errors import EdgemambaError, InputError, MissingDependency, did_you_mean
from edgemamba.models.located import summary

# How far up imports may reach; a repository's own folder ends the search.
_LEVELS = 4
# Packages whose name in pip is another one.
_PIP = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "mmcv": "mmcv",
    "pywt": "PyWavelets",
    "dynamic_network_architectures": "dynamic-network-architectures",
    "ml_collections": "ml-collections",
    "SimpleITK": "SimpleITK",
}


@dataclasses.dataclass(frozen=True)
class Loaded:
    """An imported file.

    Attributes:
        module: of the file.
        known: names of the modules that were there before.
        root: the topmost folder of the project that its imports reach.
    """

    module: types.ModuleType
    known: frozenset[str]
    root: Path

    def files(self) -> list[Path]:
        """The project's own files imported so far, this one among them."""
        return sorted({place for name, place in _project(self.known, self.root) if place.is_file()})


@contextlib.contextmanager
def imported(path: Path) -> Iterator[Loaded]:
    """The module of ``path`` inside the block; its folders are on ``sys.path`` and its modules known only there.

    Raises:
        MissingDependency: a package is missing; names it.
        InputError: not a Python file, or it fails; its own error, with file and line.
    """
    if not path.is_file() or path.suffix != ".py":
        reason = "is not a Python file" if path.exists() else "does not exist"
        raise InputError(f"{path} {reason}", hint="--module path/to/file.py:Class")
    path = path.resolve()
    above = _folders(path)
    before, aside = list(sys.path), _aside(above)
    known = frozenset(sys.modules)
    sys.path[:] = [*(str(folder) for folder in above), *before]
    importlib.invalidate_caches()
    try:
        yield Loaded(_import(path, above, known), known, above[-1])
    finally:
        sys.path[:] = before
        _forget(known, above[-1])
        sys.modules.update(aside)


def _folders(path: Path) -> list[Path]:
    """The file's folder and those above it, up to that of the repository."""
    found = [path.parent]
    while len(found) < _LEVELS and not (found[-1] / ".git").exists() and found[-1].parent != found[-1].parent.parent:
        found.append(found[-1].parent)
    return found


def _aside(above: list[Path]) -> dict[str, types.ModuleType]:
    """Take modules away whose names the project has too, such as utils; installed packages stay what they are."""
    places = (sys.prefix, sys.base_prefix)
    taken = {}
    for name, module in list(sys.modules.items()):
        root = name.partition(".")[0]
        file = getattr(sys.modules.get(root), "__file__", None)
        mine = any((folder / root).is_dir() or (folder / f"{root}.py").is_file() for folder in above)
        if mine and file and root not in ("edgemamba", "__main__") and not file.startswith(places):
            taken[name] = module
    for name in taken:
        del sys.modules[name]
    return taken


def _project(known: frozenset[str], root: Path) -> list[tuple[str, Path]]:
    """Modules of the project imported since, and where they lie; packages of its own environment are none of it."""
    found: list[tuple[str, Path]] = []
    for name in set(sys.modules) - known:
        module = sys.modules.get(name)
        places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or [])]
        if name.partition(".")[0] != "edgemamba":
            found += [(name, Path(place)) for place in places if place and Path(place).is_relative_to(root)]
    return [(name, place) for name, place in found if "site-packages" not in place.parts]


def _forget(known: frozenset[str], root: Path) -> None:
    """The next project may have modules under the same names."""
    for name in {name for name, _ in _project(known, root)}:
        del sys.modules[name]


def _import(path: Path, above: list[Path], known: frozenset[str]) -> types.ModuleType:
    package = _package(path)
    attempts: list[tuple[tuple[str, ...], bool]] = [(package, True)] if package else [((), False)]
    names = tuple(folder.name for folder in above[::-1])
    if all(name.isidentifier() for name in names):
        attempts.append((names, False))
    first: EdgemambaError | None = None
    for parents, run_init in attempts:
        try:
            return _attempt(path, parents, run_init)
        except EdgemambaError as error:
            first = first or error
            _forget(known, above[-1])
            if not package and "attempted relative import" not in error.message:
                break
    assert first is not None
    raise first


def _package(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        names.insert(0, folder.name)
        folder = folder.parent
    return tuple(names)


def _attempt(path: Path, parents: tuple[str, ...], run_init: bool) -> types.ModuleType:
    """Import ``path`` as a module of the package ``parents``, whose ``__init__`` run or stay out."""
    stem = path.stem if path.stem.isidentifier() else f"module_{abs(hash(path.stem))}"
    name = ".".join([*parents, stem])
    root = path.parents[len(parents)] if parents else path.parent
    try:
        if run_init and str(root) not in sys.path:
            sys.path.append(str(root))
        for depth in range(1, len(parents) + 1):
            part, folder = ".".join(parents[:depth]), root.joinpath(*parents[:depth])
            if run_init:
                importlib.import_module(part)
            else:
                sys.modules[part] = _bare(part, folder)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except EdgemambaError:
        raise
    except (Exception, SystemExit) as error:  # the border to another project's code, which may raise anything
        sys.modules.pop(name, None)
        raise _told(error, path) from error
    return module


def _bare(name: str, folder: Path) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    return module


def _told(error: BaseException, path: Path) -> EdgemambaError:
    where = line_of(error, path)
    if isinstance(error, ModuleNotFoundError) and error.name:
        root = error.name.partition(".")[0]
        installed = importlib.util.find_spec(root) if root.isidentifier() else None
        if installed is not None and root != error.name:
            return MissingDependency(
                f"{path.name} cannot be imported: {error.msg}, asked for at {where}; the {root} installed has none",
                hint=f"install the release of {root} that the project names in its requirements",
            )
        return MissingDependency(
            f"{path.name} cannot be imported: the package {root} is missing ({error.msg}, asked for at {where})",
            hint=f"pip install {_PIP.get(root, root)}; if {root} is part of that project, put its folder on PYTHONPATH",
        )
    return InputError(
        f"{path.name} cannot be imported: {summary(error)}, at {where}",
        hint="it has to import in Python by itself: mind the releases of packages that its project names",
    )


def line_of(error: BaseException, path: Path) -> str:
    """File and line where an error of another project's code was raised: the last one that is its own."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name} line {error.lineno}"
    root = _folders(path.resolve())[-1]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
    own = [frame for frame in frames if not {"site-packages", "edgemamba"} & set(Path(frame.filename).parts)]
    return f"{Path(own[-1].filename).name} line {own[-1].lineno}" if own else path.name


def find(module: types.ModuleType, name: str, path: Path) -> Any:
    """The class, factory or network called ``name`` in an imported file.

    Raises:
        InputError: there is none; names what is there.
    """
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    if callable(value):
        return value
    own = [key for key, item in vars(module).items() if callable(item) and _made_in(item, module) and key[0] != "_"]
    if value is not None:
        raise InputError(
            f"{name} in {path.name} is a {type(value).__name__}, not a class or function", hint=did_you_mean(name, own)
        )
    raise InputError(f"{path.name} has no {name}", hint=did_you_mean(name, own) if own else "it defines no class")


def _made_in(item: Any, module: types.ModuleType) -> bool:
    return getattr(item, "__module__", None) == module.__name__
