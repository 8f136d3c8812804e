"""What makes a measurement doubtful: one pure function, every threshold in one table, each with its remedy.

Any flag makes the measurement invalid: it is reported with its reasons, and never blessed. The thresholds are
engineering choices in the manner of pyperf, not standards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edgemamba.profiling.records import Flag, ProcessSamples, Reading
from edgemamba.profiling.stats import ENOUGH, MINIMUM_PROCESSES, drift

# vcgencmd get_throttled: bits 0-3 are set now, bits 16-19 have been set since boot.
_THROTTLED_NOW = 0b1111
_THROTTLE_NAMES = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


@dataclasses.dataclass(frozen=True)
class Threshold:
    """One rule: what it looks at, from which value on it doubts, and what helps."""

    title: str
    limit: float
    unit: str
    remedy: str

    def text(self) -> str:
        """The limit as a person reads it."""
        return f"{self.limit:g}{self.unit}"


THRESHOLDS: dict[str, Threshold] = {
    "spread": Threshold("runs scatter (IQR over median)", 10, " %", "stop other programs; pin cores; measure longer"),
    "tail": Threshold("slow tail (p99 over p50)", 2, "x", "stop other programs; look for periodic jobs"),
    "drift": Threshold("latency drifts (last against first quarter)", 3, " %", "warm up longer; cool the board"),
    "processes": Threshold(
        "processes disagree (range of medians over their median)",
        5,
        " %",
        "stop other programs; use more processes",
    ),
    "load": Threshold("the machine was busy at the start (load per core)", 0.5, "", "wait until it idles"),
    "governor": Threshold(
        "clock governor may change the frequency", 0, "", "sudo cpupower frequency-set -g performance"
    ),
    "throttled": Threshold("the board throttled", 0, "", "better power supply and cooling, then measure again"),
    "temperature": Threshold("temperature rose", 10, " °C", "cool the board, or warm it up before measuring"),
    "samples": Threshold("too few runs", ENOUGH[90], " runs", "more runs or more time, not --quick"),
    "few-processes": Threshold("too few processes", MINIMUM_PROCESSES, " processes", "measure without --quick"),
    "swap": Threshold("memory was swapped out while measuring", 0, " MB", "free memory, then measure again"),
    "emulated": Threshold("the device is emulated", 0, "", "a latency needs the board itself"),
    "golden": Threshold(
        "results changed while measuring",
        1e-6,
        "",
        "check memory and clock; this is not a slow run but a wrong one",
    ),
}


def judge(processes: Sequence[ProcessSamples], *, cores: int, emulated: bool) -> list[Flag]:
    """Every reason to doubt a measurement; none means valid.

    Args:
        processes: samples, at least one process with at least one timed run.
        cores: of the machine.
        emulated: whether an emulator ran the code.
    """
    flags = [*_timing(processes), *_machine(processes, cores), *_results(processes)]
    if emulated:
        flags.append(_flag("emulated", "emulated", "a real device"))
    return flags


def unobserved(processes: Sequence[ProcessSamples]) -> list[str]:
    """What the machine did not tell, so that no rule could look at it."""
    readings = [reading for process in processes for reading in process.readings]
    missing = []
    for key, text in (
        ("load_1min", "load average"),
        ("governor", "clock governor"),
        ("temperature_c", "temperature"),
        ("throttled_bits", "throttling bits"),
    ):
        if all(getattr(reading, key) is None for reading in readings):
            missing.append(text)
    return [f"not readable here: {', '.join(missing)}"] if missing else []


def _flag(name: str, observed: str, limit: str | None = None) -> Flag:
    rule = THRESHOLDS[name]
    return Flag(name=name, title=rule.title, observed=observed, limit=limit or rule.text(), remedy=rule.remedy)


def _timing(processes: Sequence[ProcessSamples]) -> list[Flag]:
    flags: list[Flag] = []
    kinds = {
        "runtime call": [np.asarray(p.device_run_ns[p.warmup_runs :], np.float64) for p in processes],
        "end to end": [np.asarray(p.end_to_end_ns[p.warmup_runs :], np.float64) for p in processes],
    }
    count = sum(len(times) for times in kinds["runtime call"])
    if count < THRESHOLDS["samples"].limit:
        flags.append(_flag("samples", f"{count} runs"))
    if len(processes) < THRESHOLDS["few-processes"].limit:
        flags.append(_flag("few-processes", f"{len(processes)}"))
    seen: dict[str, list[tuple[float, str]]] = {"spread": [], "tail": [], "drift": [], "processes": []}
    for kind, series in kinds.items():
        for name, value in _scatter(series).items():
            seen[name].append((value, kind))
    for name, values in seen.items():
        if values:
            value, kind = max(values)
            if value > THRESHOLDS[name].limit:
                flags.append(_flag(name, f"{value:.3g}{THRESHOLDS[name].unit} ({kind})"))
    return flags


def _scatter(series: Sequence[np.typing.NDArray[np.float64]]) -> dict[str, float]:
    """The dispersion figures of one kind of time, in the units of the table; those that have enough runs."""
    pooled = np.concatenate(series)
    first, middle, third = np.percentile(pooled, [25, 50, 75])
    figures = {"spread": 100 * (third - first) / middle}
    if len(pooled) >= ENOUGH[99]:
        figures["tail"] = float(np.percentile(pooled, 99)) / middle
    drifts = [abs(value) for times in series if (value := drift(times.tolist())) is not None]
    if drifts:
        figures["drift"] = 100 * float(np.median(drifts))
    if len(series) > 1:
        medians = [float(np.median(times)) for times in series]
        figures["processes"] = 100 * (max(medians) - min(medians)) / float(np.median(medians))
    return figures


def _machine(processes: Sequence[ProcessSamples], cores: int) -> list[Flag]:
    flags: list[Flag] = []
    readings = [reading for process in processes for reading in process.readings]
    load = next((reading.load_1min for reading in readings if reading.load_1min is not None), None)
    if load is not None and load / cores > THRESHOLDS["load"].limit:
        flags.append(_flag("load", f"{load / cores:.2f} ({load:.2f} on {cores} cores)"))
    governors = sorted({reading.governor for reading in readings if reading.governor})
    if governors and governors != ["performance"]:
        flags.append(_flag("governor", ", ".join(governors), "performance"))
    throttled = _throttled(readings)
    if throttled:
        flags.append(_flag("throttled", throttled, "no bit set"))
    warmth = [reading.temperature_c for reading in readings if reading.temperature_c is not None]
    if warmth and max(warmth) - warmth[0] > THRESHOLDS["temperature"].limit:
        flags.append(_flag("temperature", f"{warmth[0]:.0f} to {max(warmth):.0f} °C"))
    swap = [reading.swap_used_bytes for reading in readings if reading.swap_used_bytes is not None]
    if swap and max(swap) - swap[0] > THRESHOLDS["swap"].limit:
        flags.append(_flag("swap", f"{(max(swap) - swap[0]) / 1e6:.1f} MB more than at the start"))
    return flags


def _throttled(readings: Sequence[Reading]) -> str:
    """Names of the conditions that held, or came up, during the run."""
    bits = [reading.throttled_bits for reading in readings if reading.throttled_bits is not None]
    if not bits:
        return ""
    now = 0
    for value in bits:
        now |= value & _THROTTLED_NOW
    newly = 0
    for value in bits[1:]:
        newly |= (value >> 16) & ~(bits[0] >> 16) & _THROTTLED_NOW
    return ", ".join(name for bit, name in _THROTTLE_NAMES.items() if (now | newly) >> bit & 1)


def _results(processes: Sequence[ProcessSamples]) -> list[Flag]:
    checks = [check for process in processes for check in process.golden]
    failed = [check for check in checks if not check.ok]
    if failed:
        return [_flag("golden", f"the golden check failed {failed[0].at} the runs", "every check passes")]
    differences = [check.mean_abs_diff for check in checks if check.mean_abs_diff is not None]
    if differences and max(differences) - min(differences) > THRESHOLDS["golden"].limit:
        return [_flag("golden", f"mean golden difference from {min(differences):.3g} to {max(differences):.3g}")]
    return []
