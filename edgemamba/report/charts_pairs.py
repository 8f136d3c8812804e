"""Before and after for every patient, or every class: a ring for fp32, a dot for the artifact."""

from __future__ import annotations

from collections.abc import Sequence

from edgemamba.profiling.quality import ClassRetention, ClassScore, PatientScore, Retention
from edgemamba.profiling.records import ProfileReport
from edgemamba.report.figure import Figure, fixed
from edgemamba.report.svg import WIDTH, Canvas, Scale

_LEFT, _RIGHT = 44.0, WIDTH - 12.0


def patients(report: ProfileReport) -> Figure | None:
    """A column a patient, sorted; None without scores."""
    if not isinstance(report.retention, Retention):
        return None
    scored = [s for s in report.retention.scores if s.dice_reference is not None and s.dice_artifact is not None]
    if not scored:
        return None
    scored.sort(key=lambda score: score.dice_reference or 0.0)
    left_out = len(report.retention.scores) - len(scored)
    note = f" {left_out} without lesion and without prediction are left out." if left_out else ""
    return Figure(
        "Every patient",
        f"A ring with its dot inside is a patient whose Dice did not change.{note}",
        _pairs(
            report,
            "patients",
            "Dice over all slices of a patient",
            [(score.dice_reference or 0.0, score.dice_artifact or 0.0) for score in scored],
        ),
        ("patient", "slices", "with lesion", "fp32 Dice", "artifact Dice", "difference"),
        [_patient_row(score) for score in scored],
    )


def classes(report: ProfileReport) -> Figure | None:
    """A column a class, sorted; None without scores."""
    if not isinstance(report.retention, ClassRetention) or not report.retention.scores:
        return None
    scored = sorted(report.retention.scores, key=lambda score: score.top1_reference)
    return Figure(
        "Every class",
        "A ring with its dot inside is a class whose accuracy did not change.",
        _pairs(
            report,
            "classes",
            "share of a class that is named right",
            [(score.top1_reference, score.top1_artifact) for score in scored],
        ),
        ("class", "images", "fp32", "artifact", "difference"),
        [_class_row(score) for score in scored],
    )


def _pairs(report: ProfileReport, things: str, axis: str, pairs: Sequence[tuple[float, float]]) -> str:
    """The drawing: (before, after) of each column, sorted by before."""
    scale = Scale(0, 1, 196, 30)
    canvas = Canvas(
        238,
        title=f"Before and after for all {things}",
        description=f"{len(pairs)} {things}, from {fixed(pairs[0][0], 2)} to {fixed(pairs[-1][0], 2)}",
    )
    canvas.y_axis(scale, _LEFT, _RIGHT, axis)
    step = (_RIGHT - _LEFT) / len(pairs)
    radius = min(4.2, max(1.8, step * 0.36))
    for index, pair in enumerate(pairs):
        x = _LEFT + step * (index + 0.5)
        before, after = scale(pair[0]), scale(pair[1])
        canvas.line(x, before, x, after, "link")
        canvas.circle(x, before, radius, "ring s6")
        canvas.circle(x, after, radius * 0.62, "point s1")
    canvas.circle(_LEFT + 6, 222, 4.2, "ring s6")
    canvas.text(_LEFT + 16, 226, "fp32 PyTorch", css="small")
    canvas.circle(_LEFT + 116, 222, 2.8, "point s1")
    canvas.text(_LEFT + 126, 226, report.subject.precision + " artifact", css="small")
    canvas.text(_RIGHT, 226, f"{len(pairs)} {things}, sorted", css="axis", anchor="end")
    return canvas.render()


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


def _class_row(score: ClassScore) -> tuple[str, ...]:
    change = score.top1_artifact - score.top1_reference
    return (
        score.label,
        str(score.images),
        fixed(score.top1_reference, 4),
        fixed(score.top1_artifact, 4),
        f"{change:+.4f}",
    )
