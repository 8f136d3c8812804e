"""The shape of the package: who imports whom, how long files and functions are, what may not be called.

The drawing of the layers is in ``edgemamba/__init__.py``.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("edgemamba/**/*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

BASE = {"errors", "files", "console", "registry", "presets", "records", "accelerator", "versions", "__version__"}
MIDDLE = BASE | {"models", "ssm", "data", "board", "tasks"}
# What each part may import, beside itself.
ALLOWED = {
    **dict.fromkeys(BASE, BASE),
    "board": set(),
    "ssm": BASE,
    "data": BASE | {"board"},
    "tasks": BASE | {"board"},
    "models": BASE | {"ssm"},
    "compat": BASE | {"ssm"},
    "sources": MIDDLE,
    "importing": MIDDLE | {"sources"},
    "train": MIDDLE | {"sources"},
    "bundle": MIDDLE | {"sources"},
    "stages": MIDDLE | {"sources", "bundle"},
    "evaluation": MIDDLE | {"sources", "bundle"},
    "report": BASE | {"profiling"},
    "profiling": MIDDLE | {"sources", "bundle", "evaluation", "report"},
    "doctor": MIDDLE,
    "demo": MIDDLE | {"sources", "train", "stages", "profiling"},
    "foreign": MIDDLE | {"compat", "sources"},
    "cli": MIDDLE
    | {"foreign", "sources", "importing", "train", "bundle", "stages", "evaluation", "profiling", "doctor", "demo"},
    "__main__": {"cli"},
}
# The report draws what was recorded; it does not measure.
FOR_REPORT = {f"edgemamba.profiling.{name}" for name in ("records", "quality", "stats", "pictures")}
PICKLES = "edgemamba.data.plain_pickle"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports(tree: ast.Module, *, types: bool = True) -> Iterator[str]:
    """Every module that a file imports, lazily too; ``from package import module`` is its module."""
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    for_types = {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if node in for_types and not types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES or node.module == "edgemamba" else node.module


def own_imports(path: Path, *, types: bool = True) -> set[str]:
    return {name for name in imports(TREES[path], types=types) if name.split(".")[0] == "edgemamba"}


def part(module: str) -> str:
    return [*module.split("."), ""][1]


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement on: a signature is a list of names, a docstring is prose."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_every_part_has_its_place() -> None:
    assert {part(module) for module in MODULES} - {""} - {"bench"} == ALLOWED.keys() - {"__version__"}


def test_nothing_lower_imports_upward() -> None:
    upward = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in own_imports(path)
        if part(module) not in ("", "bench") and part(name) not in {part(module), "", *ALLOWED[part(module)]}
    ]
    assert not upward


def test_the_report_takes_records_only() -> None:
    taken = {n for m, path in MODULES.items() if part(m) == "report" for n in own_imports(path)}
    assert {name for name in taken if part(name) == "profiling"} <= FOR_REPORT


def test_bench_and_board_stand_alone() -> None:
    for module, path in MODULES.items():
        if part(module) != "bench":
            assert "bench" not in {part(name) for name in own_imports(path)}, module
        if part(module) == "board":
            assert {part(name) for name in own_imports(path)} <= {"board"}, module


def test_no_cycles() -> None:
    """Lazy imports count, those under TYPE_CHECKING do not: nothing runs them."""
    edges = {module: own_imports(path, types=False) & MODULES.keys() - {module} for module, path in MODULES.items()}
    while leaves := {module for module, names in edges.items() if not names}:
        edges = {module: names - leaves for module, names in edges.items() if module not in leaves}
    assert not edges


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_size_and_habits(path: Path) -> None:
    tree = TREES[path]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert len(ast.get_docstring(tree) or "") > 1, "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert lines_of(node) <= 60, f"{node.name} is too long"
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
    # One module reads pickles, of plain values only: tests/data/test_plain_pickle.
    banned = {"pickle", "dill", "joblib", "shelve", "marshal"} - ({"pickle"} if name_of(path) == PICKLES else set())
    assert not {name.split(".")[0] for name in imports(tree)} & banned
    for name, call in calls(tree):
        if name == "torch.load":
            assert [ast.unparse(k.value) for k in call.keywords if k.arg == "weights_only"] == ["True"]
        if name in ("np.load", "numpy.load"):
            assert [ast.unparse(k.value) for k in call.keywords if k.arg == "allow_pickle"] == ["False"]


def test_reading_a_report_needs_no_torch() -> None:
    code = (
        "import sys, edgemamba.report, edgemamba.profiling.stats, edgemamba.profiling.validity\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'nncf'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
