"""Which code made a result, for its record: the commit of the checkout, the versions of packages."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

import edgemamba


def commit() -> str | None:
    """Commit of the checkout edgemamba runs from, ``-dirty`` if files differ; None without a checkout."""
    root = Path(edgemamba.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def package_version(distribution: str) -> str | None:
    """Installed version of a distribution (it is not imported); None when it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
