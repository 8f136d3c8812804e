"""Charts of quality: retention, patients, and quality against speed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgemamba.profiling.records import PatientScore, ProfileReport, Quantity, Retention
from edgemamba.report.figure import Figure, fixed, interval, labels, ms, series
from edgemamba.report.svg import WIDTH, Canvas, Scale, spread

BARS = (99.0, 99.9)
_LEFT, _RIGHT = 44.0, WIDTH - 12.0
_ROW = 34
_NAME = 22


def measured(reports: Sequence[ProfileReport]) -> list[tuple[str, int, ProfileReport, Retention]]:
    """Label, series number, report and retention of every report that has one."""
    return [
        (name, index, report, report.retention)
        for index, (name, report) in enumerate(zip(labels(reports), reports, strict=True))
        if isinstance(report.retention, Retention)
    ]


def retention(reports: Sequence[ProfileReport]) -> Figure | None:
    """Dice retention with its interval beside the 99 % and 99.9 % bars; None without any.

    Several reports: a row each. One report: a row a protocol.
    """
    kept = measured(reports)
    rows = [(name, series(index), one.retention_pct) for name, index, _, one in kept]
    if len(reports) == 1 and kept:
        rows = [(name, "s1", quantity) for name, quantity in _protocol_rows(kept[0][3])]
    values = [end for *_, q in rows for end in (q.value, q.low, q.high) if end is not None]
    if not values:
        return None
    whole = min(98.9, *values), max(100.2, *values)
    left = 16 + 7.6 * min(_NAME, max(len(name) for name, *_ in rows))
    scale = Scale(*spread(whole, pad=0.03), left, WIDTH - 72)
    bottom = 30 + _ROW * len(rows)
    canvas = Canvas(
        bottom + 40,
        title="Dice retention",
        description="; ".join(f"{name}: {_percent(quantity)}" for name, _, quantity in rows),
    )
    canvas.x_axis(scale, 22, bottom, "Dice of the artifact over Dice of fp32 PyTorch, %", count=3)
    near = scale(BARS[1]) - scale(BARS[0]) < 48
    for bar, side in zip(BARS, ("end", "start") if near else ("middle", "middle"), strict=True):
        canvas.line(scale(bar), 22, scale(bar), bottom, "bar")
        canvas.text(scale(bar), 14, f"{bar:g} %", css="small", anchor=side)
    canvas.line(scale(100), 22, scale(100), bottom, "base")
    for row, (name, css, quantity) in enumerate(rows):
        y = 30 + _ROW * (row + 0.5)
        canvas.text(0, y + 4, name if len(name) <= _NAME else name[: _NAME - 1] + "…", css="small strong")
        canvas.text(WIDTH, y + 4, _percent(quantity), css="small strong", anchor="end")
        if quantity.low is not None and quantity.high is not None:
            start, stop = scale(quantity.low), scale(quantity.high)
            canvas.rect(start, y - 5, max(2.0, stop - start), 10, f"fill {css} soft", radius=5)
        if quantity.value is not None:
            canvas.circle(scale(quantity.value), y, 5.5, f"point {css}")
    return Figure(
        "What is kept of the accuracy",
        "The dot is the ratio of the two Dice, the band its 95 % interval over patients (paired). Dashed: "
        "the bars of "
        "99 % and 99.9 %.",
        canvas.render(),
        ("artifact" if len(reports) > 1 else "protocol", "retention, %", "95 % interval"),
        [(name, fixed(quantity.value, 3), interval(quantity, 3)) for name, _, quantity in rows],
    )


def patients(report: ProfileReport) -> Figure | None:
    """A column a patient, sorted: fp32 hollow, artifact filled; None without scores."""
    if not isinstance(report.retention, Retention):
        return None
    scored = [s for s in report.retention.scores if s.dice_reference is not None and s.dice_artifact is not None]
    if not scored:
        return None
    scored.sort(key=lambda score: score.dice_reference or 0.0)
    scale = Scale(0, 1, 196, 30)
    canvas = Canvas(
        238,
        title="Dice of every patient",
        description=f"{len(scored)} patients, from {fixed(scored[0].dice_reference, 2)} to "
        f"{fixed(scored[-1].dice_reference, 2)}",
    )
    canvas.y_axis(scale, _LEFT, _RIGHT, "Dice over all slices of a patient")
    step = (_RIGHT - _LEFT) / len(scored)
    radius = min(4.2, max(1.8, step * 0.36))
    for index, score in enumerate(scored):
        assert score.dice_reference is not None and score.dice_artifact is not None
        x = _LEFT + step * (index + 0.5)
        before, after = scale(score.dice_reference), scale(score.dice_artifact)
        canvas.line(x, before, x, after, "link")
        canvas.circle(x, before, radius, "ring s6")
        canvas.circle(x, after, radius * 0.62, "point s1")
    canvas.circle(_LEFT + 6, 222, 4.2, "ring s6")
    canvas.text(_LEFT + 16, 226, "fp32 PyTorch", css="small")
    canvas.circle(_LEFT + 116, 222, 2.8, "point s1")
    canvas.text(_LEFT + 126, 226, report.subject.precision + " artifact", css="small")
    canvas.text(_RIGHT, 226, f"{len(scored)} patients, sorted", css="axis", anchor="end")
    left_out = len(report.retention.scores) - len(scored)
    note = f" {left_out} without lesion and without prediction are left out." if left_out else ""
    return Figure(
        "Every patient",
        f"A ring with its dot inside is a patient whose Dice did not change.{note}",
        canvas.render(),
        ("patient", "slices", "with lesion", "fp32 Dice", "artifact Dice", "difference"),
        [_patient_row(score) for score in scored],
    )


def pareto(reports: Sequence[ProfileReport]) -> Figure | None:
    """Latency against Dice; None unless two reports of one device have both."""
    rows = [
        (name, index, time, kept, report)
        for name, index, report, kept in measured(reports)
        if (time := report.device_run.p90_ms).value is not None and kept.dice_artifact.value is not None
    ]
    if len(rows) < 2 or len({report.device.name for *_, report in rows}) > 1:
        return None
    front = pareto_front([(t.value or 0.0, r.dice_artifact.value or 0.0) for _, _, t, r, _ in rows])
    times = [q for _, _, t, _, _ in rows for q in (t.value, t.low, t.high) if q]
    dices = [r.dice_artifact.value or 0.0 for _, _, _, r, _ in rows]
    log = max(times) / min(times) > 3
    low, high = (min(times) / 1.25, max(times) * 1.25) if log else spread(times, pad=0.18, minimum=max(times) * 0.2)
    across = Scale(low, high, _LEFT + 6, _RIGHT, log)
    up = Scale(*spread(dices, pad=0.3, minimum=0.01), 226, 30)
    canvas = Canvas(
        274, title="Latency against Dice", description=f"on the front: {', '.join(rows[i][0] for i in front)}"
    )
    canvas.y_axis(up, _LEFT + 6, _RIGHT, "Dice of the artifact (pooled)")
    canvas.x_axis(across, 30, 226, "p90 of the runtime call, ms" + (" (log)" if log else ""))
    canvas.path(sorted((across(rows[i][2].value or low), up(dices[i])) for i in front), "front")
    largest = max(report.subject.artifact_bytes for *_, report in rows)
    radii = [4 + 8 * math.sqrt(report.subject.artifact_bytes / largest) for *_, report in rows]
    discs = [(across(row[2].value or low), up(dice), r) for row, dice, r in zip(rows, dices, radii, strict=True)]
    for (x, y, radius), (position, (_, index, time, _, _)) in zip(discs, enumerate(rows), strict=True):
        if time.low is not None and time.high is not None:
            canvas.line(across(time.low), y, across(time.high), y, f"stroke {series(index)}")
        canvas.circle(x, y, radius, f"{'point' if position in front else 'ring'} {series(index)}")
    for (x, y, anchor), (name, *_) in zip(_label_places(discs, [row[0] for row in rows]), rows, strict=True):
        canvas.text(x, y, name, css="small strong halo", anchor=anchor)
    return Figure(
        "Speed against accuracy",
        "Up and left is better; the area of a disc is the artifact's file size. Filled: no other is both "
        "faster and more accurate. "
        "The vertical axis is narrow: see the retention for what is a real difference.",
        canvas.render(),
        ("artifact", "p90, ms", "Dice", "file, bytes", "on the front"),
        [
            (
                name,
                ms(time.value),
                fixed(dices[i], 4),
                f"{report.subject.artifact_bytes:,}",
                "yes" if i in front else "no",
            )
            for i, (name, _, time, _, report) in enumerate(rows)
        ],
    )


def _label_places(discs: Sequence[tuple[float, float, float]], names: Sequence[str]) -> list[tuple[float, float, str]]:
    """(x, y, anchor) of each disc's label: the first place that covers no disc and no earlier label."""
    taken = [(x - r, y - r, x + r, y + r) for x, y, r in discs]
    places = []
    for (x, y, radius), name in zip(discs, names, strict=True):
        wide = 7.6 * len(name)
        options = [
            (side, y + 4 + shift)
            for shift in (0, -20, 20, -38, 38, -56, 56, -74, 74)
            for side in (x + radius + 6, x - radius - 6 - wide, x - wide / 2)
        ]
        boxes = [(at, base - 12, at + wide, base + 4) for at, base in options]
        free = [
            box
            for box in boxes
            if box[0] >= _LEFT + 6 and box[2] <= WIDTH and 16 <= box[1] <= 210 and not _covers(box, taken)
        ]
        box = (free or boxes)[0]
        taken.append(box)
        places.append((box[0], box[3] - 4, "start"))
    return places


def _covers(box: tuple[float, ...], others: Sequence[tuple[float, ...]]) -> bool:
    return any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in others)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, value) that no other point equals or beats in both and beats in one."""
    return [
        index
        for index, (cost, value) in enumerate(points)
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
    ]


def _percent(quantity: Quantity) -> str:
    return "undefined" if quantity.value is None else f"{quantity.value:.2f} %"


def _protocol_rows(kept: Retention) -> list[tuple[str, Quantity]]:
    """Retention under each protocol that says something on this split."""
    rows = []
    for name, protocol in kept.protocols.items():
        found = protocol.get("retention_percent") if isinstance(protocol, dict) else None
        if isinstance(found, dict) and found.get("value") is not None:
            quantity = Quantity(value=found["value"], low=found.get("low"), high=found.get("high"))
            rows.append((name.replace("_", " "), quantity))
    return rows or [("pooled", kept.retention_pct)]


def _patient_row(score: PatientScore) -> tuple[str, ...]:
    before, after = score.dice_reference, score.dice_artifact
    change = f"{after - before:+.4f}" if before is not None and after is not None else "–"
    return (
        score.patient,
        str(score.images),
        str(score.tumour_images),
        fixed(before, 4),
        fixed(after, 4),
        change,
    )
