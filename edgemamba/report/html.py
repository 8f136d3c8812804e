"""``report.html``: one offline file. No script runs, nothing is fetched, all text from outside is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgemamba import __version__
from edgemamba.files import write_text
from edgemamba.profiling.quality import NotMeasured
from edgemamba.profiling.records import ProfileReport
from edgemamba.report import (
    charts_latency,
    charts_pairs,
    charts_parts,
    charts_quality,
    charts_resources,
    sections,
    words,
)
from edgemamba.report.figure import Figure, interval, labels, ms, series
from edgemamba.report.style import CSS
from edgemamba.report.svg import escape

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
DATA_ID = "edgemamba-report"


def write_html(reports: Sequence[ProfileReport], path: Path) -> None:
    """Render one report, or several as a comparison, to one file.

    Args:
        reports: at least one.
        path: of the HTML file; written atomically.
    """
    write_text(path, render(reports))


def render(reports: Sequence[ProfileReport]) -> str:
    """The page as text; the reports are embedded as JSON (``DATA_ID``: a list)."""
    if not reports:
        raise ValueError("a page needs at least one report")
    body = _single(reports[0]) if len(reports) == 1 else _comparison(reports)
    title = labels(reports)[0] if len(reports) == 1 else f"{len(reports)} artifacts"
    created = max(report.created for report in reports)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(title)} – edgemamba profile</title>
<style>{CSS}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<header class="top"><span><b>edgemamba</b> profile</span><span>{escape(_moment(created))}</span></header>
<main id="main">
{body}
</main>
<footer><p>{escape(words.caveat(reports))}</p>
<p>Written by edgemamba {escape(__version__)}. The page holds its data as JSON in the element
<code>{DATA_ID}</code>; it loads nothing and runs no script.</p></footer>
<script type="application/json" id="{DATA_ID}">{embed(reports)}</script>
</body>
</html>
"""


def embed(reports: Iterable[ProfileReport]) -> str:
    """Strict JSON that cannot end the element it stands in."""
    documents = [report.model_dump(mode="json", by_alias=True) for report in reports]
    text = json.dumps(documents, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _single(report: ProfileReport) -> str:
    return f"""<p class="eyebrow">{escape(words.subject_line(report))}</p>
<h1>{escape(words.verdict(report))}</h1>
{sections.badge(report)}
{sections.key_figures(report)}
{_conditions(report)}
<p class="caveat">{escape(words.caveat([report]))}</p>
{_details(report, "r1", "h2")}"""


def _conditions(report: ProfileReport) -> str:
    note = words.not_the_board(report)
    strong = f'<p class="conditions"><strong>{escape(note)}</strong></p>' if note else ""
    return f'<p class="conditions">{escape(words.conditions([report]))}</p>{strong}'


def _details(report: ProfileReport, key: str, level: str) -> str:
    """Everything below the first screen of one report."""
    css = ' class="sub"' if level == "h2" and key != "r1" else ""
    time = [
        charts_latency.distribution(report),
        charts_latency.over_time(report),
        charts_parts.cold_start(report),
        charts_parts.warm_image(report),
    ]
    resources = [charts_resources.memory(report), charts_parts.size(report)]
    drawn = (charts_quality.retention([report]), charts_pairs.patients(report), charts_pairs.classes(report))
    quality = [figure for figure in drawn if figure]
    return f"""<h2{css} id="{key}-time">Time</h2>
{_grid(time)}
<h2{css} id="{key}-memory">Memory and size</h2>
{_grid(resources)}
<h2{css} id="{key}-quality">Accuracy</h2>
{sections.quality_lead(report)}
{_grid(quality)}
{sections.quality_table(report)}
{sections.pictures(report, key)}
<h2{css} id="{key}-export">How it was made</h2>
{sections.stages(report)}
<h2{css} id="{key}-provenance">Provenance</h2>
{sections.provenance(report)}"""


def _comparison(reports: Sequence[ProfileReport]) -> str:
    names = labels(reports)
    figures = [
        charts_quality.pareto(reports),
        charts_quality.retention(reports),
        charts_latency.distributions(reports),
        charts_resources.costs(reports),
    ]
    toc = "".join(f'<a href="#r{number}">{escape(name)}</a>' for number, name in enumerate(names, 1))
    doubtful = [name for name, report in zip(names, reports, strict=True) if not report.valid]
    if doubtful:
        state = (
            f'<div class="badge doubt"><p><strong>⚠ {len(doubtful)} of {len(reports)} measurements are '
            "doubtful</strong>: "
            f"{escape(', '.join(doubtful))}. The reasons stand with each.</p></div>"
        )
    else:
        state = f'<div class="badge"><p><strong>✓ All {len(reports)} measurements are valid</strong></p></div>'
    articles = "".join(
        f'<article id="r{number}" aria-label="{escape(name)}"><p class="eyebrow">{number} of {len(reports)}: '
        f"{escape(words.subject_line(report))}</p>"
        f"<h2>{escape(words.verdict(report))}</h2>{sections.badge(report)}{sections.key_figures(report)}"
        f"{_conditions(report)}{_details(report, f'r{number}-', 'h2')}</article>"
        for number, (name, report) in enumerate(zip(names, reports, strict=True), 1)
    )
    return f"""<p class="eyebrow">Comparison</p>
<h1>{escape(words.verdict_of_many(reports))}</h1>
{state}
{_table(reports, names)}
<p class="conditions">The same for all: {escape(words.conditions(reports))}</p>
<p class="caveat">{escape(words.caveat(reports))}</p>
<h2>Side by side</h2>
<nav class="toc" aria-label="Artifacts">{toc}</nav>
{_grid([figure for figure in figures if figure])}
{articles}"""


def _table(reports: Sequence[ProfileReport], names: Sequence[str]) -> str:
    head = (
        ("artifact", ""), ("format", ""), ("median, ms", "n"), ("p90, ms", "n"),
        ("end to end, ms", "n"), ("memory growth, MB", "n"), ("file, kB", "n"), (words.score(reports), "n"),
        ("retention, %", "n"), (f"{words.agreement(reports)}, %", "n"), ("measurement", ""),
    )  # fmt: skip
    rows = []
    for index, (name, report) in enumerate(zip(names, reports, strict=True)):
        kept = report.retention
        if isinstance(kept, NotMeasured):
            quality = ["–"] * 3
        else:
            quality = [
                f"{kept.artifact.value:.4f}" if kept.artifact.value is not None else "–",
                f"{kept.retention_pct.value:.2f}<br><small>{escape(interval(kept.retention_pct, 2))}</small>"
                if kept.retention_pct.value is not None
                else "–",
                f"{kept.agreement_pct:.3f}",
            ]
        time = report.device_run
        figures = [
            f"{ms(time.typical_ms.value)}<br><small>{escape(interval(time.typical_ms))}</small>",
            ms(time.p90_ms.value),
            ms(report.end_to_end.typical_ms.value),
            f"{report.memory.growth_mb.value:.1f}" if report.memory.growth_mb.value is not None else "–",
            f"{report.subject.artifact_bytes / 1e3:.0f}",
            *quality,
        ]
        word = '<span class="word ok">✓ valid</span>' if report.valid else '<span class="word doubt">⚠ doubtful</span>'
        rows.append(
            f'<tr><th scope="row"><span class="key {series(index)}"></span><a '
            f'href="#r{index + 1}">{escape(name)}</a></th>'
            f"<td>{escape(words.FORMATS.get(report.subject.format, report.subject.format))}<br>"
            f"<small>{escape(report.runtime)}</small></td>"
            + "".join(f'<td class="n">{figure}</td>' for figure in figures)
            + f"<td>{word}</td></tr>"
        )
    header = "".join(f'<th scope="col" class="{css}">{escape(text)}</th>' for text, css in head)
    inside = f"<thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="main compare"><table>{inside}</table></div>'


def _moment(created: str) -> str:
    """An ISO time as people read it."""
    return created.replace("T", " ").replace("+00:00", " UTC")


def _grid(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    return f'<div class="grid">{"".join(sections.panel(figure) for figure in figures)}</div>'
