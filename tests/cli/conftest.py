"""The real program in fresh processes, in a folder of its own."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@dataclasses.dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="session")
def edgemamba(place: Path) -> Callable[..., Result]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGEMAMBA")}
    environment |= {"OMP_NUM_THREADS": "1", "EDGEMAMBA_CACHE": str(place / "cache"), "COLUMNS": "100"}

    def run(*arguments: str | Path, cwd: Path = place, **variables: str) -> Result:
        command = [sys.executable, "-m", "edgemamba", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=cwd, env=environment | variables, capture_output=True, text=True, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def trained(edgemamba: Callable[..., Result], place: Path) -> Path:
    """The folder in which one small run was trained with the card's command and as few options as keep it short."""
    done = edgemamba("train", "--epochs", "2", "--size", "64", "--threads", "1")
    assert done.code == 0, done.err
    return place
