"""Line charts and legends with Pillow alone, drawn at twice the size and scaled down for smooth edges."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

INK: Colour = (38, 42, 48)
FAINT: Colour = (112, 118, 126)
GRID: Colour = (228, 231, 235)
PAPER: Colour = (255, 255, 255)
SCALE = 2


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart; None and values that are not finite leave a gap."""

    label: str
    colour: Colour
    x: Sequence[float]
    y: Sequence[float | None]


@functools.cache
def font(size: int) -> Any:
    """Pillow's built-in font, ``size`` final pixels high."""
    return ImageFont.load_default(size * SCALE)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers that cover ``low`` to ``high``: 1, 2 or 5 times a power of ten apart."""
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that cover ``low`` to ``high``, both above zero."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [round(m * 10.0**power, 12) for power in powers for m in (1, 2, 5)]
    first = max(i for i, value in enumerate(values) if value <= low * (1 + 1e-9))
    last = min(i for i, value in enumerate(values) if value >= high * (1 - 1e-9))
    return values[first : max(last, first + 1) + 1]


def chart(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    title: str,
    lines: Sequence[Line],
    unit: str,
    *,
    log: bool = False,
) -> None:
    """Draw one panel.

    Args:
        draw: canvas at SCALE times the final size.
        box: left, top, right, bottom of the panel with its labels, final pixels.
        title: above the panel.
        lines: at least one, with the same kind of x; a legend is drawn for two or more.
        unit: label of the x axis.
        log: draw y on a logarithmic scale, if every value is above zero.
    """
    left, top, right, bottom = (edge * SCALE for edge in box)
    inner = (left + 50 * SCALE, top + 46 * SCALE, right - 12 * SCALE, bottom - 38 * SCALE)
    values = [v for line in lines for v in line.y if v is not None and math.isfinite(v)]
    xs = [v for line in lines for v in line.x]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    log = log and low > 0
    rows = log_ticks(low, high) if log else ticks(low, high if high > low else low + max(abs(low), 1e-3))
    columns = [x for x in ticks(min(xs), max(xs), 7) if x == int(x) and min(xs) <= x <= max(xs)] or [min(xs)]
    span_x = (min(xs), max(max(xs), min(xs) + 1))

    def scale(y: float) -> float:
        return math.log10(y) if log else y

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - span_x[0]) / (span_x[1] - span_x[0])
        up = (scale(y) - scale(rows[0])) / (scale(rows[-1]) - scale(rows[0]))
        return inner[0] + across * (inner[2] - inner[0]), inner[3] - up * (inner[3] - inner[1])

    draw.text((left + 6 * SCALE, top + 2 * SCALE), title, INK, font(14))
    for value, text in zip(rows, labels(rows), strict=True):
        _, y = at(span_x[0], value)
        draw.line((inner[0], y, inner[2], y), GRID, SCALE)
        draw.text((inner[0] - 7 * SCALE, y), text, FAINT, font(11), anchor="rm")
    for value in columns:
        x, _ = at(value, rows[0])
        draw.line((x, inner[3], x, inner[3] + 4 * SCALE), FAINT, SCALE)
        draw.text((x, inner[3] + 7 * SCALE), f"{value:.0f}", FAINT, font(11), anchor="mt")
    draw.line((inner[0], inner[3], inner[2], inner[3]), FAINT, SCALE)
    draw.text(((inner[0] + inner[2]) / 2, bottom - 4 * SCALE), unit, FAINT, font(11), anchor="mb")
    for line in lines:
        pairs = zip(line.x, line.y, strict=True)
        points = [None if y is None or not math.isfinite(y) else at(x, y) for x, y in pairs]
        _polyline(draw, points, line.colour)
    if len(lines) > 1:
        legend(draw, (box[0] + 54, box[1] + 24), [(line.label, line.colour) for line in lines])


def legend(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], entries: Sequence[tuple[str, Colour]], gap: int = 16
) -> None:
    """Coloured marks with their labels in a row from ``place`` (final pixels) on."""
    x, y = place[0] * SCALE, place[1] * SCALE
    for label, colour in entries:
        draw.rounded_rectangle((x, y + 3 * SCALE, x + 12 * SCALE, y + 9 * SCALE), 2 * SCALE, colour)
        draw.text((x + 17 * SCALE, y + 6 * SCALE), label, INK, font(11), anchor="lm")
        x += int(17 * SCALE + draw.textlength(label, font(11)) + gap * SCALE)


def labels(values: Sequence[float]) -> list[str]:
    """Texts of an axis: few digits, and powers of ten for all of them where all are small."""
    if max(abs(value) for value in values) >= 0.01:
        return [f"{value:.6g}" for value in values]
    parts = [f"{value:.3e}".split("e") for value in values]
    return ["0" if float(mantissa) == 0 else f"{float(mantissa):g}e{int(power)}" for mantissa, power in parts]


def canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """White picture of ``width`` x ``height`` final pixels."""
    image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    return image, ImageDraw.Draw(image)


def finish(image: Image.Image) -> Image.Image:
    """Scale down to final pixels."""
    return image.resize((image.width // SCALE, image.height // SCALE), Image.Resampling.LANCZOS)


def _polyline(draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float] | None], colour: Colour) -> None:
    run: list[tuple[float, float]] = []
    for point in [*points, None]:
        if point is not None:
            run.append(point)
            continue
        if len(run) > 1:
            draw.line(run, colour, 2 * SCALE, joint="curve")
        if len(points) <= 40:
            for x, y in run:
                radius = 2.5 * SCALE
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
        run = []
