"""Rules of the files that go to a board: old Python, no other packages, nothing of edgemamba."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgemamba.board

FOLDER = Path(edgemamba.board.__file__).parent
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")
SIBLINGS = {path.stem for path in FILES}
RUNTIMES = {"onnxruntime", "ai_edge_litert", "tflite_runtime", "tensorrt"}


def imports(node: ast.AST) -> Iterator[str]:
    """Top-level names of the modules imported below ``node``, except for type checking only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from imports(other)
        elif isinstance(child, ast.Import):
            yield from (alias.name.split(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0
            yield (child.module or "").split(".")[0]
        else:
            yield from imports(child)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 8))
    assert "from __future__ import annotations" in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_the_standard_library_numpy_and_pillow(path: Path) -> None:
    found = set(imports(ast.parse(path.read_text())))
    assert found <= {*sys.stdlib_module_names, "numpy", "PIL", *SIBLINGS}
    assert not found & RUNTIMES


def test_every_file_is_in_some_bundle() -> None:
    from edgemamba.bundle.build import SCRIPTS, TENSORRT_SCRIPTS

    assert {*SCRIPTS, *TENSORRT_SCRIPTS} == {path.name for path in FILES}
    assert not set(SCRIPTS) & set(TENSORRT_SCRIPTS)
