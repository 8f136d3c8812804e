"""Charts of what an artifact costs besides time: memory, file size, export stages."""

from __future__ import annotations

from collections.abc import Sequence

from edgemamba.profiling.records import ProfileReport
from edgemamba.report.figure import Figure, fixed, interval, labels, series, significant
from edgemamba.report.svg import WIDTH, Canvas, Scale

STEPS = {
    "start": "interpreter",
    "imports": "runtime imported",
    "load": "model loaded",
    "first": "first run",
    "warm": "warmed up",
    "end": "after all runs",
}


def memory(report: ProfileReport) -> Figure:
    """Resident memory at each step: what the idle runtime takes, and what the model adds."""
    steps, idle, peak = report.memory.steps_mb, report.memory.idle_mb.value or 0.0, report.memory.peak_mb
    names = [name for name in STEPS if name in steps]
    canvas = Canvas(
        74 + 30 * len(names),
        title="Resident memory by step",
        description="; ".join(f"{STEPS[name]} {steps[name]:.1f} MB" for name in names),
    )
    highest = max([*steps.values(), peak.value or 0.0])
    bottom = 24 + 30 * len(names)
    scale = Scale(0, highest * 1.04, 138, WIDTH - 56)
    canvas.x_axis(scale, 18, bottom, "resident memory, MB", count=4)
    for row, name in enumerate(names):
        y = 24 + 30 * row
        base = min(steps[name], idle)
        canvas.text(130, y + 14, STEPS[name], css="small", anchor="end")
        canvas.rect(scale(0), y, scale(base) - scale(0), 19, "fill s6 soft", radius=2)
        canvas.rect(scale(base), y, scale(steps[name]) - scale(base), 19, "fill s1", radius=2)
        canvas.text(scale(steps[name]) + 6, y + 14, f"{steps[name]:.1f}", css="small strong halo")
    if peak.value is not None:
        canvas.line(scale(peak.value), 18, scale(peak.value), bottom, "marker")
        canvas.text(scale(peak.value), 12, f"peak {peak.value:.1f}", css="small strong", anchor="middle")
    growth = report.memory.growth_mb
    return Figure(
        "Memory",
        f"Grey is the idle runtime (interpreter, numpy, {report.runtime}); blue is what this model adds: "
        f"{fixed(growth.value, 1)} MB at the peak. Medians over fresh processes.",
        canvas.render(),
        ("step", "resident, MB"),
        [
            *((STEPS[name], fixed(steps[name], 2)) for name in names),
            ("peak", f"{fixed(peak.value, 2)} ({interval(peak, 2)})"),
            ("growth over the idle runtime", f"{fixed(growth.value, 2)} ({interval(growth, 2)})"),
        ],
    )


def costs(reports: Sequence[ProfileReport]) -> Figure:
    """Memory growth and model file of several artifacts, a pair of bars each."""
    names = labels(reports)
    growths = [report.memory.growth_mb.value or 0.0 for report in reports]
    files = [report.subject.artifact_bytes / 1e6 for report in reports]
    canvas = Canvas(
        30 + 46 * len(reports),
        title="Memory and file size",
        description="; ".join(
            f"{name}: {growth:.1f} MB of memory, {size:.2f} MB of file"
            for name, growth, size in zip(names, growths, files, strict=True)
        ),
    )
    half = WIDTH / 2
    canvas.text(0, 13, "memory growth, MB", css="axis")
    canvas.text(half + 8, 13, "model file, MB", css="axis")
    for left, values, decimals in ((0.0, growths, 1), (half + 8, files, 2)):
        scale = Scale(0, max(*values, 1e-9), 0, half - 62)
        for row, value in enumerate(values):
            y = 42 + 46 * row
            canvas.rect(left, y, max(1.0, scale(value)), 16, f"fill {series(row)}", radius=2)
            canvas.text(left + scale(value) + 7, y + 13, fixed(value, decimals), css="small strong")
    for row, name in enumerate(names):
        canvas.text(0, 36 + 46 * row, name, css="small")
    return Figure(
        "Memory and file size",
        "Memory is the peak of a process that runs the model over one that has only imported the runtime.",
        canvas.render(),
        ("artifact", "growth, MB", "peak, MB", "idle runtime, MB", "model file, bytes"),
        [
            (
                name,
                fixed(report.memory.growth_mb.value, 2),
                fixed(report.memory.peak_mb.value, 2),
                fixed(report.memory.idle_mb.value, 2),
                f"{report.subject.artifact_bytes:,}",
            )
            for name, report in zip(names, reports, strict=True)
        ],
    )


def stage_rows(report: ProfileReport) -> list[tuple[str, str, float, str]]:
    """The export stages: number and title, time in words, share of the longest, main facts."""
    stages = report.subject.stages
    longest = max((stage.seconds for stage in stages), default=0.0) or 1.0
    return [
        (
            f"{number}. {stage.title}",
            f"{significant(stage.seconds, 2)} s" + (" (cached)" if stage.cached else ""),
            stage.seconds / longest,
            facts_text(stage.facts),
        )
        for number, stage in enumerate(stages, 1)
    ]


def facts_text(facts: dict[str, object], limit: int = 8) -> str:
    """Plain facts as ``name value, name value``; nested ones are left to the JSON."""
    shown = []
    for key, value in facts.items():
        if isinstance(value, (dict, list)) or value is None:
            continue
        text = significant(value, 4) if isinstance(value, float) and abs(value) >= 1e-3 else _plain(value)
        shown.append(f"{key.replace('_', ' ')} {text}")
    return ", ".join(shown[:limit]) + (", …" if len(shown) > limit else "")


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.2e}"
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "…"
