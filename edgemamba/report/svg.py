"""A small SVG drawing kit: scales with ticks, a canvas with classes instead of colours, every text escaped.

Colours, strokes and fonts come from the page's style sheet by class, so that one drawing serves light, dark
and print.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
import math
from collections.abc import Iterable, Sequence

Point = tuple[float, float]

WIDTH = 460


def escape(text: object) -> str:
    """Text for HTML and SVG content and for double-quoted attributes."""
    return html.escape(str(text), quote=True)


def short(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps values from [low, high] to coordinates from ``start`` to ``stop``; logarithmic on request."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Coordinate of a value, which is kept inside the range."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """About ``count`` round values inside the range."""
        if self.log:
            found = [
                factor * 10.0**power
                for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
                for factor in (1, 2, 5)
            ]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) >= 2:
                return found[:: math.ceil(len(found) / (2 * count))]
        step = nice_step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def nice_step(rough: float) -> float:
    """The 1-2-5 number next to ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))


def spread(values: Sequence[float], *, pad: float = 0.06, minimum: float = 0.0) -> tuple[float, float]:
    """A range around values with some air, at least ``minimum`` wide and never empty."""
    low, high = min(values), max(values)
    width = max(high - low, minimum, abs(high) * 1e-6, 1e-12)
    middle = (low + high) / 2
    return middle - width * (0.5 + pad), middle + width * (0.5 + pad)


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """A tick's label with as many decimals as its step needs."""
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=abs(value) or 1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals and abs(round(step, decimals) - step) > step * 1e-6:
        decimals += 1
    return f"{value:,.{min(decimals, 6)}f}"


class Canvas:
    """Collects elements; ``render`` gives one accessible ``<svg>`` with title and description."""

    def __init__(self, height: float, *, title: str, description: str, width: float = WIDTH) -> None:
        self.width = width
        self.height = height
        self.title = title
        self.description = description
        self._parts: list[str] = []

    def text(self, x: float, y: float, text: str, *, css: str = "", anchor: str = "start") -> None:
        """One line of text; ``anchor`` start, middle or end."""
        self._parts.append(
            f'<text x="{short(x)}" y="{short(y)}" class="{escape(css)}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """A straight line."""
        self._parts.append(
            f'<line x1="{short(x1)}" y1="{short(y1)}" x2="{short(x2)}" y2="{short(y2)}" class="{escape(css)}"/>'
        )

    def rect(self, x: float, y: float, width: float, height: float, css: str, *, radius: float = 0) -> None:
        """A rectangle; nothing is drawn without extent."""
        if width > 0 and height > 0:
            corner = f' rx="{short(radius)}"' if radius else ""
            self._parts.append(
                f'<rect x="{short(x)}" y="{short(y)}" width="{short(width)}" '
                f'height="{short(height)}"{corner} '
                f'class="{escape(css)}"/>'
            )

    def circle(self, x: float, y: float, radius: float, css: str) -> None:
        """A disc or ring."""
        self._parts.append(f'<circle cx="{short(x)}" cy="{short(y)}" r="{short(radius)}" class="{escape(css)}"/>')

    def path(self, points: Iterable[Point], css: str) -> None:
        """A line through points."""
        joined = "L".join(f"{short(x)} {short(y)}" for x, y in points)
        self._parts.append(f'<path d="M{joined}" class="{escape(css)}"/>')

    def dots(self, points: Iterable[Point], css: str) -> None:
        """Many small dots as one path of zero-length strokes with round caps."""
        joined = "".join(f"M{short(x)} {short(y)}h0" for x, y in points)
        if joined:
            self._parts.append(f'<path d="{joined}" class="{escape(css)}"/>')

    def bars(self, segments: Iterable[tuple[float, float, float]], css: str) -> None:
        """Many vertical strokes (x, y from, y to) as one path."""
        joined = "".join(f"M{short(x)} {short(low)}V{short(high)}" for x, low, high in segments)
        if joined:
            self._parts.append(f'<path d="{joined}" class="{escape(css)}"/>')

    def x_axis(self, scale: Scale, top: float, bottom: float, title: str, *, count: int = 5) -> None:
        """Vertical grid lines with labels below, and the axis title."""
        ticks = scale.ticks(count)
        for value in ticks:
            x = scale(value)
            self.line(x, top, x, bottom, "grid")
            self.text(x, bottom + 16, tick_text(value, ticks), css="tick", anchor="middle")
        self.text(scale.stop, bottom + 33, title, css="axis", anchor="end")

    def y_axis(self, scale: Scale, left: float, right: float, title: str, *, count: int = 4) -> None:
        """Horizontal grid lines with labels at the left, and the axis title above."""
        ticks = scale.ticks(count)
        for value in ticks:
            y = scale(value)
            self.line(left, y, right, y, "grid")
            self.text(left - 7, y + 4, tick_text(value, ticks), css="tick", anchor="end")
        self.text(0, min(scale.start, scale.stop) - 11, title, css="axis")

    def render(self) -> str:
        """The whole drawing."""
        return (
            f'<svg viewBox="0 0 {short(self.width)} {short(self.height)}" role="img">'
            f"<title>{escape(self.title)}</title><desc>{escape(self.description)}</desc>"
            f"{''.join(self._parts)}</svg>"
        )
