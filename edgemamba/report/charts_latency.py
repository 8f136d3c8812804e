"""Charts of time: how latencies are distributed, how they went, where they come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgemamba.profiling.quality import Quantity
from edgemamba.profiling.records import Latency, ProcessSamples, ProfileReport
from edgemamba.report.figure import Figure, interval, labels, ms, series
from edgemamba.report.svg import WIDTH, Canvas, Scale, spread

Floats = NDArray[np.float64]

_LEFT, _RIGHT = 44.0, WIDTH - 12.0
_MOST_DOTS = 1800
_CURVE_POINTS = 240


def timed_ms(process: ProcessSamples, kind: str = "device_run_ns") -> Floats:
    """Timed runs of one process in order, milliseconds."""
    times: list[int] = getattr(process, kind)
    return np.asarray(times[process.warmup_runs :], np.float64) / 1e6


def all_ms(report: ProfileReport, kind: str = "device_run_ns") -> Floats:
    """Timed runs of all processes, milliseconds."""
    return np.concatenate([timed_ms(process, kind) for process in report.processes])


def distribution(report: ProfileReport) -> Figure:
    """Histogram above, cumulative share below, with the percentiles that have samples enough."""
    times = np.sort(all_ms(report))
    scale, beyond = _time_scale([times])
    canvas = Canvas(
        318,
        title="Distribution of the runtime call",
        description=f"{len(times)} timed runs; {_percentile_words(report.device_run)}",
    )
    _histogram(canvas, times, scale)
    shares = Scale(0, 100, 272, 122)
    canvas.y_axis(shares, _LEFT, _RIGHT, "share of runs at most this slow, %")
    canvas.x_axis(scale, 122, 272, "runtime call, ms" + (" (log)" if scale.log else ""))
    canvas.path(_ecdf(times, scale, shares), "curve s1")
    place = -99.0
    for percent, quantity in _percentiles(report.device_run):
        if quantity.value is None or percent == 95:
            continue
        x = scale(quantity.value)
        canvas.line(x, 14, x, shares(percent), "marker")
        canvas.circle(x, shares(percent), 3.2, "point s1")
        if x - place > 26:
            canvas.text(x + 3, 12, f"p{percent}", css="small strong")
            place = x
    if beyond:
        canvas.text(_RIGHT, 264, f"{beyond} slower, up to {ms(float(times[-1]))} ms →", css="small", anchor="end")
    return Figure(
        "How long one run takes",
        f"All {len(times)} timed runs of {len(report.processes)} processes, warm-up excluded, nothing removed.",
        canvas.render(),
        ("percentile", "runtime call, ms", "95 % interval, ms", "end to end, ms"),
        [
            (f"p{p}", ms(q.value) if q.value is not None else q.reason, interval(q), ms(e.value))
            for (p, q), (_, e) in zip(_percentiles(report.device_run), _percentiles(report.end_to_end), strict=True)
        ],
    )


def distributions(reports: Sequence[ProfileReport]) -> Figure:
    """One cumulative curve a report."""
    times = [np.sort(all_ms(report)) for report in reports]
    names = labels(reports)
    scale, _ = _time_scale(times)
    height = 250 + 17 * ((len(reports) + 1) // 2)
    canvas = Canvas(
        height,
        title="Latency distributions",
        description="; ".join(_summary(n, r) for n, r in zip(names, reports, strict=True)),
    )
    shares = Scale(0, 100, 194, 28)
    canvas.y_axis(shares, _LEFT, _RIGHT, "share of runs at most this slow, %")
    canvas.x_axis(scale, 28, 194, "runtime call, ms" + (" (log)" if scale.log else ""))
    for index, (name, values) in enumerate(zip(names, times, strict=True)):
        canvas.path(_ecdf(values, scale, shares), f"curve {series(index)}")
        x = scale(float(np.median(values)))
        canvas.circle(x, shares(50), 3.6, f"point {series(index)}")
        column, row = index % 2, index // 2
        left, y = _LEFT + column * 206, 250 + 17 * row
        canvas.path([(left, y - 4), (left + 22, y - 4)], f"curve {series(index)}")
        canvas.text(left + 28, y, name, css="small")
    return Figure(
        "How long one run takes",
        "Cumulative share of the timed runs; the dot is the median. Further left is faster, steeper is steadier.",
        canvas.render(),
        ("artifact", "p50, ms", "p90, ms", "p99, ms", "runs"),
        [
            (
                n,
                *(ms(q.value) if q.value is not None else q.reason for q in (d.p50_ms, d.p90_ms, d.p99_ms)),
                str(d.n),
            )
            for n, d in ((name, report.device_run) for name, report in zip(names, reports, strict=True))
        ],
    )


def over_time(report: ProfileReport) -> Figure:
    """Every run in order, process after process, warm-up shaded."""
    runs = [np.asarray(process.device_run_ns, np.float64) / 1e6 for process in report.processes]
    timed = all_ms(report)
    top = min(float(max(times.max() for times in runs)), 2.5 * float(np.median(timed)))
    low = min(float(times.min()) for times in runs)
    scale = Scale(*spread([low, top], pad=0.05), 216, 30)
    canvas = Canvas(262, title="Latency in run order", description=_order_words(report))
    canvas.y_axis(scale, _LEFT, _RIGHT, "runtime call, ms")
    total = sum(len(times) for times in runs)
    gap = 6.0
    width = (_RIGHT - _LEFT - gap * (len(runs) - 1)) / total
    x = _LEFT
    clipped = 0
    for index, (process, times) in enumerate(zip(report.processes, runs, strict=True)):
        stop = x + width * len(times)
        canvas.rect(x, 30, width * process.warmup_runs, 186, "warmup")
        _dots(canvas, times, x, width, scale)
        middle = float(np.median(times[process.warmup_runs :]))
        canvas.line(x + width * process.warmup_runs, scale(middle), stop, scale(middle), "median")
        over = np.flatnonzero(times > scale.high)
        clipped += len(over)
        canvas.bars([(x + width * (i + 0.5), 30, 36) for i in over], "over")
        if len(runs) > 1:
            canvas.text((x + stop) / 2, 233, str(index + 1), css="tick", anchor="middle")
        x = stop + gap
    canvas.text(_RIGHT, 250, "process" if len(runs) > 1 else "run", css="axis", anchor="end")
    note = f" {clipped} runs lie above the axis (marks at the top)." if clipped else ""
    return Figure(
        "How it went",
        "Every run in order. Warm-up is shaded, the line is each process's median: a slope is drift, "
        "steps are "
        f"processes that disagree.{note}",
        canvas.render(),
        ("process", "warm-up runs", "timed runs", "median, ms", "last against first quarter, %"),
        [_process_row(index, process) for index, process in enumerate(report.processes)],
    )


def _percentiles(latency: Latency) -> list[tuple[int, Quantity]]:
    return [(50, latency.p50_ms), (90, latency.p90_ms), (95, latency.p95_ms), (99, latency.p99_ms)]


def _percentile_words(latency: Latency) -> str:
    known = [f"p{p} {ms(q.value)} ms" for p, q in _percentiles(latency) if q.value is not None]
    return ", ".join(known) or "too few runs for percentiles"


def _summary(name: str, report: ProfileReport) -> str:
    return f"{name}: median {ms(report.device_run.typical_ms.value)} ms"


def _time_scale(groups: Sequence[Floats]) -> tuple[Scale, int]:
    """One axis for sorted groups, cut far beyond p99, and how many runs lie beyond it."""
    low = min(float(times[0]) for times in groups)
    high = max(min(float(times[-1]), 1.3 * float(np.percentile(times, 99))) for times in groups)
    log = high / low > 3
    if log:
        low, high = low / 1.1, high * 1.1
    else:
        low, high = spread([low, high], minimum=low * 0.02)
    beyond = sum(int((times > high).sum()) for times in groups)
    return Scale(low, high, _LEFT, _RIGHT, log), beyond


def _histogram(canvas: Canvas, times: Floats, scale: Scale) -> None:
    space = np.geomspace if scale.log else np.linspace
    edges = space(scale.low, scale.high, 49)
    counts, _ = np.histogram(times, edges)
    tallest = max(1, int(counts.max()))
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        height = 66 * count / tallest
        canvas.rect(scale(left) + 0.4, 86 - height, scale(right) - scale(left) - 0.8, height, "fill s1 soft")
    canvas.line(_LEFT, 86, _RIGHT, 86, "base")


def _ecdf(times: Floats, scale: Scale, shares: Scale) -> list[tuple[float, float]]:
    """A step curve through sorted times, thinned where there are many."""
    ranks = np.unique(np.linspace(0, len(times) - 1, min(len(times), _CURVE_POINTS)).round().astype(int))
    points = [(scale(float(times[0])), shares(0))]
    for rank in ranks.tolist():
        x = scale(float(times[rank]))
        points += [(x, points[-1][1]), (x, shares(100 * (rank + 1) / len(times)))]
    return points


def _dots(canvas: Canvas, times: Floats, x: float, width: float, scale: Scale) -> None:
    """A dot a run; where there are too many, the range of each few neighbours: no slow run disappears."""
    inside = np.minimum(times, scale.high)
    if len(times) <= _MOST_DOTS // 3:
        canvas.dots(((x + width * (i + 0.5), scale(value)) for i, value in enumerate(inside.tolist())), "dot s1")
        return
    bins = np.array_split(inside, min(len(times), int(width * len(times) * 1.5) + 1))
    at = x
    segments, middles = [], []
    for values in bins:
        at += width * len(values)
        centre = at - width * len(values) / 2
        segments.append((centre, scale(float(values.min())), scale(float(values.max()))))
        middles.append((centre, scale(float(np.median(values)))))
    canvas.bars(segments, "range s1")
    canvas.dots(middles, "dot s1")


def _drift_pct(times: Floats) -> str:
    quarter = len(times) // 4
    if quarter < 5:
        return "–"
    return f"{100 * (float(np.median(times[-quarter:])) / float(np.median(times[:quarter])) - 1):+.1f}"


def _process_row(index: int, process: ProcessSamples) -> tuple[str, ...]:
    times = timed_ms(process)
    return (
        str(index + 1),
        str(process.warmup_runs),
        str(len(times)),
        ms(float(np.median(times))),
        _drift_pct(times),
    )


def _order_words(report: ProfileReport) -> str:
    medians = ", ".join(ms(value) for value in report.device_run.process_medians_ms)
    return f"{len(report.processes)} processes one after the other; medians {medians} ms"
