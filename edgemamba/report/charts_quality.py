"""Charts of quality: retention, and quality against speed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgemamba.profiling.quality import ClassRetention, NotMeasured, Quantity, Retention
from edgemamba.profiling.records import ProfileReport
from edgemamba.report.figure import Figure, fixed, interval, labels, ms, series
from edgemamba.report.svg import WIDTH, Canvas, Scale, spread

BARS = (99.0, 99.9)
_LEFT, _RIGHT = 44.0, WIDTH - 12.0
_ROW = 34
_NAME = 22


Kept = Retention | ClassRetention


def measured(reports: Sequence[ProfileReport]) -> list[tuple[str, int, ProfileReport, Kept]]:
    """Label, series number, report and retention of every report that has one."""
    return [
        (name, index, report, report.retention)
        for index, (name, report) in enumerate(zip(labels(reports), reports, strict=True))
        if not isinstance(report.retention, NotMeasured)
    ]


def retention(reports: Sequence[ProfileReport]) -> Figure | None:
    """Retention with its interval beside the 99 % and 99.9 % bars; None without any.

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
    score, unit = _words([one for *_, one in kept])
    bottom = 30 + _ROW * len(rows)
    canvas = Canvas(
        bottom + 40,
        title="Retention",
        description="; ".join(f"{name}: {_percent(quantity)}" for name, _, quantity in rows),
    )
    canvas.x_axis(scale, 22, bottom, f"{score} of the artifact over that of fp32 PyTorch, %", count=3)
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
        f"The dot is the ratio of the two figures, the band its 95 % interval over {unit} (paired). Dashed: the bars "
        "of 99 % and 99.9 %.",
        canvas.render(),
        ("artifact" if len(reports) > 1 else "protocol", "retention, %", "95 % interval"),
        [(name, fixed(quantity.value, 3), interval(quantity, 3)) for name, _, quantity in rows],
    )


def pareto(reports: Sequence[ProfileReport]) -> Figure | None:
    """Latency against accuracy; None unless two reports of one device have both, in one measure."""
    rows = [
        (name, index, time, kept, report)
        for name, index, report, kept in measured(reports)
        if (time := report.device_run.p90_ms).value is not None and kept.artifact.value is not None
    ]
    if len(rows) < 2 or len({report.device.name for *_, report in rows}) > 1:
        return None
    scores = {kept.score for *_, kept, _ in rows}
    if len(scores) > 1:
        return None
    score = scores.pop()
    front = pareto_front([(t.value or 0.0, r.artifact.value or 0.0) for _, _, t, r, _ in rows])
    times = [q for _, _, t, _, _ in rows for q in (t.value, t.low, t.high) if q]
    dices = [r.artifact.value or 0.0 for _, _, _, r, _ in rows]
    log = max(times) / min(times) > 3
    low, high = (min(times) / 1.25, max(times) * 1.25) if log else spread(times, pad=0.18, minimum=max(times) * 0.2)
    across = Scale(low, high, _LEFT + 6, _RIGHT, log)
    up = Scale(*spread(dices, pad=0.3, minimum=0.01), 226, 30)
    canvas = Canvas(
        274, title=f"Latency against {score}", description=f"on the front: {', '.join(rows[i][0] for i in front)}"
    )
    canvas.y_axis(up, _LEFT + 6, _RIGHT, f"{score} of the artifact")
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
        ("artifact", "p90, ms", score, "file, bytes", "on the front"),
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


def _words(kept: Sequence[Kept]) -> tuple[str, str]:
    """What is measured, and over what the intervals are."""
    scores = {one.score for one in kept}
    units = {"patients" if isinstance(one, Retention) else "images" for one in kept}
    return scores.pop() if len(scores) == 1 else "accuracy", " or ".join(sorted(units))


def _protocol_rows(kept: Kept) -> list[tuple[str, Quantity]]:
    """Retention under each protocol that says something on this split; of a classifier top-1 and top-5."""
    if isinstance(kept, ClassRetention):
        return [("top-1", kept.retention_pct), ("top-5", kept.top5_retention_pct)]
    rows = []
    for name, protocol in kept.protocols.items():
        found = protocol.get("retention_percent") if isinstance(protocol, dict) else None
        if isinstance(found, dict) and found.get("value") is not None:
            quantity = Quantity(value=found["value"], low=found.get("low"), high=found.get("high"))
            rows.append((name.replace("_", " "), quantity))
    return rows or [("pooled", kept.retention_pct)]
