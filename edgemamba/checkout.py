"""The git checkout that edgemamba runs from, for the records of what made a result."""

from __future__ import annotations

import subprocess
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
