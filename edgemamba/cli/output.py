"""What goes to stdout: one JSON document, or plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

_printed: list[bool] = []
# A number, perhaps with its unit; "-" and nothing stand for one that is not there.
_NUMBER = re.compile(r"[\d.,]+( \S+)?|-|")


def document(value: Any) -> None:
    """Print one JSON document (no NaN)."""
    text = json.dumps(value, indent=2, allow_nan=False)
    _printed.append(True)
    print(text)


def has_document() -> bool:
    """Whether stdout has its one document already."""
    return bool(_printed)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a plain table; columns of numbers are aligned right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [all(_NUMBER.fullmatch(row[i]) for row in cells[1:]) for i in range(len(header))]
    for row in cells:
        line = "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        print(line.rstrip())


def pairs(items: Iterable[tuple[str, str]]) -> None:
    """Print ``key  value`` lines, keys aligned."""
    listed = list(items)
    width = max((len(key) for key, _ in listed), default=0)
    for key, value in listed:
        print(f"{key.ljust(width)}  {value}")
