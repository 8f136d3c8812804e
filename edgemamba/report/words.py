"""Sentences of the report: the verdict, the key figures, the conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgemamba.presets import devices, targets
from edgemamba.profiling.quality import ClassRetention, NotMeasured, Quantity, Retention
from edgemamba.profiling.records import ProfileReport
from edgemamba.report.figure import fixed, interval, labels, megabytes, ms

_CAVEAT = "Research software, not a medical device, not for diagnosis. Performance on other data is unknown."
_MASKS_CAVEAT = (
    "Research software, not a medical device, not for diagnosis. Performance on other scanners is unknown; "
    "a small change "
    "of Dice can be a missed lesion, so missed lesions and false alarms are listed beside it."
)
FORMATS = {"onnx": "ONNX", "tflite": "TFLite"}


@dataclasses.dataclass(frozen=True)
class Key:
    """One key figure: label, value with unit, and a line below."""

    label: str
    value: str
    unit: str
    more: str


def caveat(reports: Sequence[ProfileReport]) -> str:
    """What nobody may conclude from the page."""
    return _MASKS_CAVEAT if any(report.subject.task == "segmentation" for report in reports) else _CAVEAT


def subject_line(report: ProfileReport) -> str:
    """Name of the Bundle and what it was made for."""
    known = targets().get(report.subject.target)
    return f"{report.subject.name}: for {known.title if known else report.subject.target}"


def place(report: ProfileReport) -> str:
    """Where it was measured, as a person says it."""
    if report.device.name == "host":
        return "this host"
    return f"an emulated {report.device.title}" if report.device.emulated else f"a {report.device.title}"


def verdict(report: ProfileReport) -> str:
    """One sentence: how fast, how good."""
    subject, time = report.subject, report.device_run.typical_ms.value
    artifact = f"{subject.model} in {subject.precision} ({FORMATS.get(subject.format, subject.format)})"
    if report.device.emulated:
        speed = f"{artifact} runs on {place(report)}; an emulator gives no latency"
    else:
        speed = f"{artifact} takes {ms(time)}\u00a0ms an image on {place(report)}"
    kept = report.retention
    if isinstance(kept, NotMeasured):
        unknown = report.subject.task == "tensor"
        return f"{speed}; accuracy was not measured{': the task of this network is not known' if unknown else ''}."
    before = fixed(kept.reference.value, 3)
    return f"{speed} and keeps {_kept(kept)} of the fp32 model’s {kept.score} of {before}."


def verdict_of_many(reports: Sequence[ProfileReport]) -> str:
    """One sentence over several artifacts of one page."""
    names = labels(reports)
    timed = [
        (time, name, report.device_run.typical_ms)
        for report, name in zip(reports, names, strict=True)
        if (time := report.device_run.typical_ms.value) is not None and not report.device.emulated
    ]
    models = sorted({report.subject.model for report in reports})
    head = f"{len(reports)} artifacts of {models[0]}" if len(models) == 1 else f"{len(reports)} artifacts"
    places = {place(report) for report in reports}
    where = f" on {places.pop()}" if len(places) == 1 else ""
    speed = f": {_speeds(timed, where)}" if timed else ""
    kept = [r.retention for r in reports if not isinstance(r.retention, NotMeasured)]
    known = [value for one in kept if (value := one.retention_pct.value) is not None]
    if not known:
        return f"{head}{speed}; accuracy was not measured."
    everyone = "each keeps" if len(known) == len(reports) else f"the {len(known)} that were scored keep"
    return f"{head}{speed}; {everyone} at least {_floor(min(known))}\u00a0% of the fp32 model’s {score(reports)}."


def score(reports: Sequence[ProfileReport]) -> str:
    """What accuracy is measured in, over several reports."""
    return _common([r.retention.score for r in reports if not isinstance(r.retention, NotMeasured)], "accuracy")


def agreement(reports: Sequence[ProfileReport]) -> str:
    """What agreement counts, over several reports."""
    counted = [r.retention.agreement_of for r in reports if not isinstance(r.retention, NotMeasured)]
    return _common(counted, "agreement with fp32")


def _common(words: Sequence[str], otherwise: str) -> str:
    return words[0] if len(set(words)) == 1 else otherwise


def _speeds(timed: Sequence[tuple[float, str, Quantity]], where: str) -> str:
    """The fastest, if its interval lies below the slowest one's; else that there is no clear difference."""
    low, name, fast = min(timed, key=lambda row: row[0])
    high, _, slow = max(timed, key=lambda row: row[0])
    if len(timed) == 1:
        return f"the {name} artifact takes {ms(low)}\u00a0ms an image{where}"
    if fast.high is None or slow.low is None or fast.high >= slow.low:
        return f"no clear difference in speed{where} ({ms(low)} to {ms(high)}\u00a0ms an image)"
    slowest = f"slowest {ms(high)}\u00a0ms"
    return f"the {name} artifact is the fastest{where} with {ms(low)}\u00a0ms an image ({slowest})"


def keys(report: ProfileReport) -> list[Key]:
    """The figures of the first screen."""
    device, whole, cold = report.device_run, report.end_to_end, report.cold_start
    memory, subject, kept = report.memory, report.subject, report.retention
    size, unit = megabytes(subject.artifact_bytes).rsplit(" ", 1)
    bundle = megabytes(subject.bundle_bytes)
    found = [
        Key("Runtime call, median", ms(device.typical_ms.value), "ms", _interval(device.typical_ms)),
        Key("Runtime call, p90", ms(device.p90_ms.value), "ms", _interval(device.p90_ms)),
        Key("End to end, median", ms(whole.typical_ms.value), "ms", _interval(whole.typical_ms)),
        Key("Cold start to first result", ms(cold.total_ms.value), "ms", _interval(cold.total_ms)),
        Key("Peak memory", fixed(memory.peak_mb.value, 1), "MB", _growth(report)),
        Key("Model file", size, unit, f"{subject.parameters:,} parameters; Bundle {bundle}"),
    ]
    if isinstance(kept, NotMeasured):
        found.append(Key("Accuracy", "–", "", kept.reason))
    else:
        kept_pct, same_pct = fixed(kept.retention_pct.value, 2), fixed(kept.agreement_pct, 3)
        found += [
            Key(f"{_sentence(kept.score)} retention", kept_pct, "%", _interval(kept.retention_pct, 2)),
            Key(_sentence(kept.agreement_of), same_pct, "%", f"against fp32, {kept.images} images"),
        ]
    if subject.task == "tensor" and (same := subject.verification.get("cosine")) is not None:
        relative = subject.verification.get("mean_rel_diff")
        more = f"mean difference {relative:.1e} of the output’s scale" if relative is not None else ""
        found.append(Key("Output against fp32", f"{same:.6f}", "cosine", more))
    return found


def conditions(reports: Sequence[ProfileReport]) -> str:
    """What the figures hold for, as far as it is the same for all: device, runtime, threads, data."""
    parts = [_conditions(report) for report in reports]
    return " · ".join(part for part in parts[0] if all(part in other for other in parts))


def _conditions(report: ProfileReport) -> list[str]:
    facts = report.device.facts
    parts = [
        report.device.title,
        " ".join(str(facts[key]) for key in ("cpu", "architecture") if facts.get(key)),
        f"{report.runtime} {report.runtime_version}",
        f"{report.protocol.threads} thread" + ("s" if report.protocol.threads > 1 else ""),
        report.subject.precision,
        f"input {'x'.join(str(side) for side in report.subject.input_shape)}",
        f"batch {report.protocol.batch}",
        f"{report.device_run.n} runs in {report.protocol.processes} fresh process"
        + ("es" if report.protocol.processes > 1 else ""),
    ]
    kept = report.retention
    if not isinstance(kept, NotMeasured):
        parts.append(f"{kept.score} on {kept.images} images of {kept.groups} ({kept.data}, {kept.split} split)")
    return [part for part in parts if part]


def not_the_board(report: ProfileReport) -> str:
    """Says it when an artifact for a board was measured elsewhere; else empty."""
    board = devices().get(report.subject.target)
    if report.device.name != "host" or board is None or board.name == "host":
        return ""
    return (
        f"Made for {board.title}, measured on this host: file size and accuracy carry over, milliseconds and "
        "their ratios do not. On the board, python agent.py in the Bundle measures the same way."
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _kept(kept: Retention | ClassRetention) -> str:
    value = kept.retention_pct.value
    return "an undefined share" if value is None else f"{fixed(value, 1 if value < 99.9 or value >= 100 else 2)}\u00a0%"


def _floor(value: float) -> str:
    """Rounded down, so that ``at least`` stays true."""
    return f"{int(value * 100) / 100:.2f}".rstrip("0").rstrip(".")


def _interval(quantity: Quantity, decimals: int | None = None) -> str:
    if quantity.value is None:
        return quantity.reason
    if quantity.low is None and quantity.high is None:
        return quantity.reason
    return f"95 %: {interval(quantity, decimals)}"


def _growth(report: ProfileReport) -> str:
    growth, idle = report.memory.growth_mb.value, report.memory.idle_mb.value
    return f"{fixed(growth, 1)} MB over the idle runtime ({fixed(idle, 1)} MB)"
