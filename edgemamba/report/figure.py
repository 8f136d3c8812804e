"""What every chart returns, and how several reports are told apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from edgemamba.profiling.quality import Quantity
from edgemamba.profiling.records import ProfileReport

# Class of the n-th series: colour, dash and marker differ together.
SERIES = 6


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing with its caption and the numbers behind it.

    Attributes:
        title: short heading.
        caption: how to read it; one or two sentences.
        svg: the drawing.
        header, rows: the data table; texts, units in the header.
    """

    title: str
    caption: str
    svg: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def series(index: int) -> str:
    """Style class of a series."""
    return f"s{index % SERIES + 1}"


def labels(reports: Sequence[ProfileReport]) -> list[str]:
    """Shortest names that tell the reports apart: model, target, precision, ... as far as they differ."""
    parts = [
        (r.subject.model, r.subject.target, r.subject.precision, r.subject.format, r.runtime, r.device.name)
        for r in reports
    ]
    varying = [index for index in range(len(parts[0])) if len({part[index] for part in parts}) > 1]
    # Format and runtime follow from the target in most sets; they are named only where nothing else differs.
    shown = [index for index in varying if index < 3 or index == 5] or varying or [0, 2]
    names = [" ".join(part[index] for index in shown) for part in parts]
    if len(set(names)) < len(names) and varying:
        names = [" ".join(part[index] for index in varying) for part in parts]
    return [
        f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def ms(value: float | None) -> str:
    """Milliseconds with three significant digits."""
    return "–" if value is None else significant(value)


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, trailing zeros kept, without exponent."""
    if value == 0:
        return "0"
    value = float(f"{value:.{digits}g}")
    decimals = digits - 1 - math.floor(math.log10(abs(value)) + 1e-12)
    return f"{value:,.{max(0, decimals)}f}"


def fixed(value: float | None, decimals: int) -> str:
    """A number with fixed decimals, or a dash."""
    return "–" if value is None else f"{value:,.{decimals}f}"


def interval(quantity: Quantity, decimals: int | None = None) -> str:
    """``low to high``, or why there is none."""
    if quantity.low is None and quantity.high is None:
        return quantity.reason
    ends = []
    for end, word in ((quantity.low, "below"), (quantity.high, "above")):
        if end is None:
            ends.append(f"open {word}")
        else:
            ends.append(fixed(end, decimals) if decimals is not None else significant(end))
    return " to ".join(ends)


def megabytes(count: float) -> str:
    """Bytes as a readable size, decimal units."""
    if count >= 1e6:
        return f"{significant(count / 1e6)} MB"
    return f"{significant(count / 1e3)} kB" if count >= 1e3 else f"{count:.0f} bytes"
