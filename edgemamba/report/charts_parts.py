"""Stacked bars: a cold start, one warm image, and a Bundle, each by its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgemamba.profiling.records import ProfileReport
from edgemamba.report.charts_latency import timed_ms
from edgemamba.report.figure import Figure, megabytes, ms
from edgemamba.report.svg import WIDTH, Canvas, Scale

Part = tuple[str, float, str]

_RESULTS = {
    "segmentation": "its mask: preprocessing, the runtime call, the threshold",
    "classification": "its classes: preprocessing, the runtime call, their order",
    "tensor": "the output: preprocessing, the runtime call",
}
# Series of a file's role.
_ROLES = {"model": "s1", "golden": "s2", "code": "s3", "text": "s6"}
_FILES = 7
_COLUMNS = 2


def cold_start(report: ProfileReport) -> Figure:
    """From the start of a process to its first result."""
    cold = report.cold_start
    total = cold.total_ms.value or 0.0
    known = cold.import_ms + cold.load_ms + cold.first_run_ms
    parts = [
        ("interpreter start", max(0.0, total - known), "s6"),
        ("imports", cold.import_ms, "s4"),
        ("model load", cold.load_ms, "s3"),
        ("first run", cold.first_run_ms, "s1"),
    ]
    return _figure(
        "Cold start",
        f"From the start of a process to its first result: medians over {cold.n} fresh processes, the "
        "files in the "
        "system’s cache.",
        parts,
        lambda value: f"{ms(value)} ms",
        total,
    )


def warm_image(report: ProfileReport) -> Figure:
    """One image once everything is warm."""
    around = [timed_ms(process, "end_to_end_ns") - timed_ms(process) for process in report.processes]
    call, rest = report.device_run.typical_ms.value or 0.0, float(np.median(np.concatenate(around)))
    return _figure(
        "One warm image",
        f"From the decoded picture to {_RESULTS[report.subject.task]}. Reading and decoding files is not in it.",
        [("runtime call", call, "s1"), ("before and after", rest, "s2")],
        lambda value: f"{ms(value)} ms",
        report.end_to_end.typical_ms.value or call + rest,
    )


def size(report: ProfileReport) -> Figure:
    """The Bundle's largest files."""
    subject = report.subject
    files = sorted(subject.files, key=lambda entry: -entry.bytes)
    rows: list[Part] = [(entry.path, float(entry.bytes), _ROLES[entry.role]) for entry in files[:_FILES]]
    if files[_FILES:]:
        rest = files[_FILES:]
        rows.append((f"{len(rest)} more files", float(sum(entry.bytes for entry in rest)), "s6"))
    canvas = Canvas(
        42 + 25 * len(rows),
        title="Files of the Bundle",
        description="; ".join(f"{name} {megabytes(count)}" for name, count, _ in rows),
    )
    canvas.text(0, 20, megabytes(subject.bundle_bytes), css="total")
    scale = Scale(0, max(max(count for _, count, _ in rows), 1), 124, WIDTH - 76)
    for row, (name, count, css) in enumerate(rows):
        y = 38 + 25 * row
        canvas.text(116, y + 13, name if len(name) <= 16 else name[:15] + "…", css="small", anchor="end")
        canvas.rect(scale(0), y, max(1.5, scale(count) - scale(0)), 17, f"fill {css}", radius=2)
        canvas.text(scale(count) + 7, y + 13, megabytes(count), css="small strong")
    weights = megabytes(4 * subject.parameters)
    return Figure(
        "Bundle",
        f"What is copied to the board. {subject.artifact} is {megabytes(subject.artifact_bytes)}; its "
        f"{subject.parameters:,} parameters alone would be {weights} in float32.",
        canvas.render(),
        ("file", "bytes"),
        [(entry.path, f"{entry.bytes:,}") for entry in files],
    )


def _figure(title: str, caption: str, parts: Sequence[Part], text: Callable[[float], str], total: float) -> Figure:
    rows = -(-len(parts) // _COLUMNS)
    words = "; ".join(f"{name} {text(value)}" for name, value, _ in parts)
    canvas = Canvas(70 + 21 * rows, title=title, description=words)
    canvas.text(0, 20, text(total), css="total")
    scale = Scale(0, max(sum(value for _, value, _ in parts), 1e-9), 0, WIDTH)
    x = 0.0
    for index, (name, value, css) in enumerate(parts):
        width = scale(value)
        canvas.rect(x, 31, max(0.0, width - 1.5), 22, f"fill {css}", radius=2)
        x += width
        left, y = (index % _COLUMNS) * WIDTH / _COLUMNS, 77 + 21 * (index // _COLUMNS)
        canvas.rect(left, y - 10, 11, 11, f"fill {css}", radius=2)
        canvas.text(left + 17, y, f"{name} {text(value)}", css="small")
    return Figure(
        title, caption, canvas.render(), ("part", "amount"), [(name, text(value)) for name, value, _ in parts]
    )
