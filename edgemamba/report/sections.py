"""Parts of the page that belong to one report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgemamba.profiling.quality import ClassRetention, NotMeasured, Quantity, Rate, Retention
from edgemamba.profiling.records import ProfileReport
from edgemamba.report import charts_resources, words
from edgemamba.report.figure import Figure, fixed, interval, megabytes
from edgemamba.report.masks import case_tiles, class_cases
from edgemamba.report.svg import escape

_LEGEND = (
    ("hit", "lesion, found"),
    ("alarm", "false alarm"),
    ("miss", "missed"),
    ("differ", "fp32 and artifact differ"),
)

_PARITY = (
    ("cosine", "cosine, mean over images"),
    ("least_cosine", "cosine, least"),
    ("scale", "scale of the output (root mean square)"),
    ("mean_rel_diff", "mean |difference| over the scale"),
    ("max_rel_diff", "largest |difference| over the scale"),
)
_TOP = "Top-1 is the share of images whose true class comes first."
_PROTOCOL_HEADER = ("protocol", "fp32 PyTorch", "artifact", "retention, %", "definition")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the row; numbers at the right."""
    head = "".join(f'<th scope="col"{_side(rows, column)}>{escape(text)}</th>' for column, text in enumerate(header))
    body = "".join(
        "<tr>"
        + f'<th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{_side(rows, column)}>{escape(text)}</td>" for column, text in enumerate(row) if column)
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def panel(figure: Figure) -> str:
    """A drawing with its caption, and its numbers folded away."""
    return (
        "<figure "
        f'class="panel"><figcaption><h3>{escape(figure.title)}</h3><p>{escape(figure.caption)}</p></figcaption>'
        f"{figure.svg}<details><summary>Numbers</summary>{table(figure.header, figure.rows)}</details>"
        "</figure>"
    )


def badge(report: ProfileReport) -> str:
    """Whether the measurement can be trusted, and if not, every reason with its remedy."""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in report.notes)
    if report.valid:
        words = "<strong>✓ Latency valid</strong>: nothing makes it doubtful."
        return f'<div class="badge"><p>{words}</p>{notes}</div>'
    reasons = "".join(
        f"<li><b>{escape(flag.title)}</b>: {escape(flag.observed)}, limit {escape(flag.limit)}. "
        f'<span class="remedy">{escape(flag.remedy)}.</span></li>'
        for flag in report.flags
    )
    count = f"{len(report.flags)} reason" + ("s" if len(report.flags) > 1 else "")
    return (
        f'<div class="badge doubt"><p><strong>⚠ Latency doubtful</strong>, for {count}:</p>'
        f"<ul>{reasons}</ul>{notes}</div>"
    )


def key_figures(report: ProfileReport) -> str:
    """The tiles of the first screen."""
    tiles = "".join(
        f'<div><dt>{escape(key.label)}</dt><dd class="value">{escape(key.value)} '
        f"<small>{escape(key.unit)}</small></dd>"
        f'<dd class="more">{escape(key.more)}</dd></div>'
        for key in words.keys(report)
    )
    return f'<dl class="keys">{tiles}</dl>'


def quality_lead(report: ProfileReport) -> str:
    """What was scored and how, or why nothing was."""
    kept = report.retention
    if isinstance(kept, NotMeasured):
        hint = f" {escape(_sentence([kept.hint]))}." if kept.hint else ""
        return f'<p class="lead">Accuracy not measured: {escape(kept.reason)}.{hint}</p>{_parity(report)}'
    share = "all" if kept.images == kept.of_images else f"{kept.images} of"
    note = f" {escape(kept.split_note)}." if kept.split_note else ""
    means = f"Dice is {escape(kept.headline)}." if isinstance(kept, Retention) else _TOP
    return (
        f'<p class="lead">The artifact on {escape(kept.runtime)} and the fp32 PyTorch model on {share} '
        f"{kept.of_images} "
        f"held-out images ({escape(kept.data)}, {escape(kept.split)} split, {escape(kept.groups)}). "
        f"{means}{note}</p>"
    )


def quality_table(report: ProfileReport) -> str:
    """Figures that the headline alone hides, and Dice under every protocol."""
    kept = report.retention
    if isinstance(kept, ClassRetention):
        return _class_table(kept)
    if not isinstance(kept, Retention):
        return ""
    rows = [
        ("Dice, pooled", _value(kept.dice_reference, 4), _value(kept.dice_artifact, 4)),
        (
            "false alarms on empty slices",
            _rate(kept.false_alarms_reference),
            _rate(kept.false_alarms_artifact),
        ),
        ("lesion slices missed altogether", _rate(kept.missed_reference), _rate(kept.missed_artifact)),
        ("equal mask pixels", "–", f"{kept.mask_agreement_pct:.4f} %"),
        ("Dice of the two masks with each other", "–", fixed(kept.mask_dice, 5)),
        ("probability, mean |difference|", "–", f"{kept.mean_abs_difference:.2e}"),
        ("probability, largest |difference|", "–", f"{kept.max_abs_difference:.2e}"),
    ]
    protocols = [
        _protocol_row(name, protocol) for name, protocol in kept.protocols.items() if "left_out" not in protocol
    ]
    return (
        '<h3 class="part">Beside Dice</h3><div '
        f'class="main">{table(("", "fp32 PyTorch", "artifact"), rows)}</div>'
        f"<details><summary>Dice under other protocols</summary>"
        f"{table(_PROTOCOL_HEADER, protocols)}</details>"
    )


def _class_table(kept: ClassRetention) -> str:
    rows = [
        ("true class first", _value(kept.top1_reference, 4), _value(kept.top1_artifact, 4)),
        ("true class among the five best", _value(kept.top5_reference, 4), _value(kept.top5_artifact, 4)),
        ("right by one of them only, images", str(kept.lost), str(kept.gained)),
        ("equal first classes, %", "–", _value(kept.same_class_pct, 3)),
        ("probabilities, mean total variation", "–", f"{kept.mean_variation:.2e}"),
        ("probability, mean |difference|", "–", f"{kept.mean_abs_difference:.2e}"),
        ("probability, largest |difference|", "–", f"{kept.max_abs_difference:.2e}"),
    ]
    return f'<h3 class="part">Beside it</h3><div class="main">{table(("", "fp32 PyTorch", "artifact"), rows)}</div>'


def _parity(report: ProfileReport) -> str:
    """Agreement of a network's raw output with PyTorch, where nothing else is known; else empty."""
    numbers = report.subject.verification
    if report.subject.task != "tensor" or "cosine" not in numbers:
        return ""
    rows = [(label, f"{numbers[key]:.6g}") for key, label in _PARITY if isinstance(numbers.get(key), float)]
    images = f"{numbers.get('images')} images ({escape(str(numbers.get('data', '')))})"
    return (
        f'<h3 class="part">The output against fp32 PyTorch, on {images}</h3>'
        f'<div class="main">{table(("", "artifact"), rows)}</div>'
    )


def pictures(report: ProfileReport, key: str) -> str:
    """Cases with their masks: worst, median and best, and where the artifact differs most."""
    kept = report.retention
    if isinstance(kept, NotMeasured) or not kept.cases:
        return ""
    if isinstance(kept, ClassRetention):
        return class_cases(kept)
    legend = "".join(f'<li><span class="swatch {css}"></span>{escape(text)}</li>' for css, text in _LEGEND)
    cases = "".join(
        f'<section class="case"><h3>{escape(_sentence(case.why))} <span>{escape(case.label)}; '
        f"{case.unequal_pixels} pixels differ from fp32</span></h3>"
        "<div "
        f'class="tiles">{case_tiles(case, f"{key}-case{number}", report.subject.precision)}</div></section>'
        for number, case in enumerate(kept.cases, 1)
    )
    return (
        '<h3 class="part">Pictures</h3><p class="lead">The worst, the median and the best slice with a '
        "lesion by "
        "the artifact’s Dice, and the slices where its mask differs most from the fp32 model’s. Never "
        "only good ones.</p>"
        f'<ul class="legend">{legend}</ul>{cases}'
    )


def stages(report: ProfileReport) -> str:
    """The export stages with their time."""
    rows = "".join(
        f'<tr><th scope="row">{escape(title)}</th><td class="barcell">{escape(time)}'
        '<span class="bar" '
        f'style="width:{max(1.0, 100 * share):.1f}%"></span></td><td>{escape(facts)}</td></tr>'
        for title, time, share, facts in charts_resources.stage_rows(report)
    )
    checks = charts_resources.facts_text(report.subject.verification)
    verified = f'<p class="lead">Verified against PyTorch: {escape(checks)}.</p>' if checks else ""
    if not rows:
        return verified
    return (
        f'<div class="main"><table><thead><tr><th scope="col">stage</th><th scope="col">time</th>'
        f'<th scope="col">result</th></tr></thead><tbody>{rows}</tbody></table></div>{verified}'
    )


def provenance(report: ProfileReport) -> str:
    """Hashes, versions, machine, protocol, and the command that reproduces the report."""
    subject = report.subject
    rows = [
        ("artifact", f"{subject.artifact}, SHA-256 {subject.artifact_sha256}"),
        ("manifest", f"SHA-256 {subject.manifest_sha256}"),
        (
            "trained weights",
            f"SHA-256 {subject.weights_sha256}" if subject.weights_sha256 else "not recorded",
        ),
        ("edgemamba", report.edgemamba + (f", commit {report.commit}" if report.commit else "")),
        (
            "runtime",
            f"{report.runtime} {report.runtime_version}" + (f" ({report.runtime_note})" if report.runtime_note else ""),
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in report.environment.items())),
        ("machine", _machine(report.device.facts)),
        ("protocol", report.protocol.text),
        ("golden vectors", _golden(report)),
    ]
    kept = report.retention
    if not isinstance(kept, NotMeasured):
        rows.append(("data", f"{kept.data}, {kept.split} split, fingerprint {kept.fingerprint}"))
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="hash">{escape(text)}</td></tr>' for name, text in rows
    )
    return (
        f'<div class="main"><table><tbody>{body}</tbody></table></div>'
        f"<p>The command that made this report:</p><pre><code>{escape(report.command)}</code></pre>"
    )


def _sentence(reasons: Sequence[str]) -> str:
    text = "; ".join(reasons)
    return text[:1].upper() + text[1:]


def _side(rows: Sequence[Sequence[str]], column: int) -> str:
    numeric = column > 0 and all(
        len(row[column]) <= 24 and row[column][:1] in "–-+0123456789" for row in rows if row[column]
    )
    return ' class="n"' if numeric else ""


def _value(quantity: Quantity, decimals: int) -> str:
    if quantity.value is None:
        return quantity.reason
    ends = f" ({interval(quantity, decimals)})" if quantity.low is not None else ""
    return fixed(quantity.value, decimals) + ends


def _rate(rate: Rate) -> str:
    if rate.rate_pct.value is None:
        return f"{rate.count} of {rate.of}"
    return f"{rate.count} of {rate.of} ({rate.rate_pct.value:.1f} %)"


def _protocol_row(name: str, protocol: dict[str, Any]) -> tuple[str, ...]:
    kept = protocol.get("retention_percent") or {}
    return (
        name.replace("_", " "),
        fixed(protocol.get("reference"), 4),
        fixed(protocol.get("candidate"), 4),
        fixed(kept.get("value"), 2),
        str(protocol.get("definition", "")),
    )


def _machine(facts: dict[str, Any]) -> str:
    """What the machine says about itself; bytes as sizes."""
    words = []
    for key, value in facts.items():
        if value is None:
            continue
        if key.endswith("_bytes") and isinstance(value, int):
            words.append(f"{key.removesuffix('_bytes')} {megabytes(value)}")
        else:
            words.append(f"{key.replace('_', ' ')} {value}")
    return ", ".join(words)


def _golden(report: ProfileReport) -> str:
    checks = [check for process in report.processes for check in process.golden]
    if not checks:
        return "not checked"
    differences = [check.mean_abs_diff for check in checks if check.mean_abs_diff is not None]
    word = "agree" if all(check.ok for check in checks) else "DISAGREE"
    return (
        f"{word}, {len(checks)} checks before and after measuring; mean |difference| at most "
        f"{max(differences, default=0.0):.2e}, {checks[0].agreement_of} at least "
        f"{100 * min(check.agreement for check in checks):.4f} %"
    )
