"""The README says what the records and the program say."""

from __future__ import annotations

import re
from pathlib import Path

from edgemamba.bench.tables import fill
from edgemamba.presets import devices, targets
from edgemamba.registry import MODELS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_tables_are_the_records() -> None:
    assert fill(README, ROOT / "profiles" / "reports") == README


def test_names_in_the_readme_exist() -> None:
    assert set(re.findall(r"--model (\S+)", README)) <= set(MODELS)
    known = {*targets(), *(target.kind for target in targets().values())}
    assert set(re.findall(r"--target ([\w-]+)", README)) <= known
    assert set(re.findall(r"--device ([\w-]+)", README)) <= {*devices(), "cuda", "cpu", "auto"}


def test_every_linked_file_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_command_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in set(re.findall(r"`?make (\w+)", README)):
        assert f"\n{name}:" in makefile, name
