"""Results of the measuring steps as one line each."""

from __future__ import annotations

from collections.abc import Sequence

from edgemamba.profiling.quality import ClassRetention, NotMeasured, Quantity, Retention
from edgemamba.profiling.records import ProfileReport
from edgemamba.profiling.session import AgentRun


def golden(runs: Sequence[AgentRun]) -> str:
    """The worst of the golden checks."""
    checks = [check for run in runs for check in run.golden]
    if not checks:
        return "not checked"
    largest = max((check.mean_abs_diff for check in checks if check.mean_abs_diff is not None), default=0.0)
    worst = min(checks, key=lambda check: check.agreement)
    return f"ok, mean |difference| {largest:.2g}, {worst.agreement_of} {100 * worst.agreement:.4f} %"


def cold_start(report: ProfileReport) -> str:
    """Process start to first result, and its parts."""
    cold = report.cold_start
    return (
        f"{_value(cold.total_ms)} ms to the first result (imports {cold.import_ms:.0f}, load "
        f"{cold.load_ms:.0f}, "
        f"first run {cold.first_run_ms:.1f})"
    )


def latency(report: ProfileReport) -> str:
    """Median with interval, tail, end to end."""
    device, whole = report.device_run, report.end_to_end
    tail = [
        f"p{percent} {_value(quantity)}"
        for percent, quantity in ((90, device.p90_ms), (99, device.p99_ms))
        if quantity.value is not None
    ]
    parts = [f"runtime call median {_value(device.typical_ms)} ms{_interval(device.typical_ms)}", *tail]
    runs = f"{device.n} runs, {len(report.processes)} process" + ("es" if len(report.processes) > 1 else "")
    return f"{', '.join(parts)}; end to end {_value(whole.typical_ms)} ms; {runs}"


def memory(report: ProfileReport) -> str:
    """Peak and growth."""
    found = report.memory
    return (
        f"peak {_value(found.peak_mb)} MB, {_value(found.growth_mb)} MB over the idle runtime "
        f"({_value(found.idle_mb)} MB)"
    )


def size(report: ProfileReport) -> str:
    """Model file and Bundle."""
    subject = report.subject
    return f"{subject.artifact} {subject.artifact_bytes:,} bytes, Bundle {subject.bundle_bytes:,} bytes"


def retention(kept: Retention | ClassRetention | NotMeasured) -> str:
    """Accuracy kept, agreement and what changed, or why not."""
    if isinstance(kept, NotMeasured):
        return f"not measured: {kept.reason}"
    if isinstance(kept, ClassRetention):
        changed = f"{kept.lost} images lost, {kept.gained} gained"
    else:
        alarms = kept.false_alarms_artifact
        changed = f"false alarms {alarms.count} (fp32 {kept.false_alarms_reference.count}) of {alarms.of}"
    return (
        f"{_value(kept.retention_pct, 2)} % of {kept.score} {_value(kept.reference, 4)}"
        f"{_interval(kept.retention_pct, 2)}, {kept.agreement_of} {kept.agreement_pct:.4f} %, {changed}, "
        f"{kept.images} images"
    )


def validity(report: ProfileReport) -> str:
    """Valid, or every reason."""
    if report.valid:
        return "valid"
    return "doubtful: " + "; ".join(f"{flag.title} {flag.observed}, limit {flag.limit}" for flag in report.flags)


def _value(quantity: Quantity, decimals: int | None = None) -> str:
    if quantity.value is None:
        return "–"
    return f"{quantity.value:.4g}" if decimals is None else f"{quantity.value:.{decimals}f}"


def _interval(quantity: Quantity, decimals: int | None = None) -> str:
    if quantity.low is None or quantity.high is None:
        return ""
    low, high = (f"{end:.4g}" if decimals is None else f"{end:.{decimals}f}" for end in (quantity.low, quantity.high))
    return f" (95 %: {low} to {high})"
