"""``report.json``: one profiled Bundle. Raw samples are kept, so that every statistic can be computed again.

Keys carry their unit. There is no NaN: a number that could not be had is null and says why in ``reason``. No
user name, host name or path is recorded.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import AliasChoices, ConfigDict, Field, model_validator

from edgemamba.profiling.quality import ClassRetention, NotMeasured, Quantity, Retention
from edgemamba.records import Record, StageRecord

Role = Literal["model", "golden", "code", "text"]

_NUMBER_LIST = re.compile(r"\[\n\s*((?:-?[\d.eE+-]+,\n\s*)*-?[\d.eE+-]+)\n\s*\]")


class SizedFile(Record):
    """One file of the Bundle."""

    path: str
    bytes: int
    role: Role


class Subject(Record):
    """Which artifact was measured."""

    name: str
    model: str
    task: str = "segmentation"
    parameters: int
    target: str
    format: str
    precision: str
    artifact: str
    artifact_bytes: int
    artifact_sha256: str
    manifest_sha256: str
    bundle_bytes: int
    input_shape: list[int]
    weights_sha256: str | None
    quantization: dict[str, Any] | None
    verification: dict[str, Any]
    stages: list[StageRecord]
    files: list[SizedFile]


class DeviceFacts(Record):
    """Where it was measured: what the machine says about itself, without its name."""

    name: str = Field(description="host, or a name of profiles/devices")
    title: str
    emulated: bool
    facts: dict[str, Any]


class Protocol(Record):
    """How it was measured; a result is comparable only with results of the same protocol and identity."""

    processes: int
    threads: int
    warmup_runs: int
    warmup_s: float
    min_runs: int
    min_s: float
    max_s: float
    batch: int = 1
    order: str = "single stream: the next image after the previous result"
    text: str = Field(description="the protocol in words")


class Reading(Record):
    """Sensors at one moment; null where the machine does not tell."""

    at: str
    load_1min: float | None = None
    governor: str | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    throttled_bits: int | None = None
    swap_used_bytes: int | None = None


class MemoryStep(Record):
    """Resident memory of the measuring process at one moment."""

    at: str
    rss_bytes: int
    peak_rss_bytes: int


class GoldenCheck(Record):
    """Golden vectors of the Bundle, computed by the artifact on its own runtime."""

    at: str
    ok: bool
    mean_abs_diff: float | None = Field(description="null where a result was not finite")
    max_abs_diff: float | None
    agreement: float = Field(validation_alias=AliasChoices("agreement", "mask_agreement"))
    agreement_of: str = Field(default="equal mask pixels", description="what the agreement counts")


class ProcessSamples(Record):
    """One fresh process. Times in order, ns of a monotonic clock; the first ``warmup_runs`` are warm-up."""

    warmup_runs: int
    device_run_ns: list[int]
    end_to_end_ns: list[int]
    import_ns: int
    load_ns: int
    first_run_ns: int
    process_to_first_result_ns: int
    memory: list[MemoryStep]
    readings: list[Reading]
    golden: list[GoldenCheck]
    timer_overhead_ns: int | None = Field(default=None, description="of one reading of the clock")

    @model_validator(mode="after")
    def _paired(self) -> ProcessSamples:
        if len(self.device_run_ns) != len(self.end_to_end_ns) or self.warmup_runs > len(self.device_run_ns):
            raise ValueError("device and end-to-end times must come in pairs, warm-up first")
        return self


class Latency(Record):
    """Statistics of one kind of time over all timed runs of all processes; nothing is removed."""

    typical_ms: Quantity = Field(description="median of the process medians")
    p50_ms: Quantity
    p90_ms: Quantity
    p95_ms: Quantity
    p99_ms: Quantity
    min_ms: float
    max_ms: float
    mean_ms: float
    mad_ms: float = Field(description="median absolute deviation from the median")
    process_medians_ms: list[float]
    n: int


class ColdStart(Record):
    """From the start of a process to its first result, medians; files were cached by the system."""

    total_ms: Quantity
    import_ms: float
    load_ms: float
    first_run_ms: float
    n: int


class Memory(Record):
    """Resident memory, medians over processes."""

    peak_mb: Quantity = Field(description="largest resident size, 10^6 bytes")
    idle_mb: Quantity = Field(description="resident size of the process that has only imported the runtime")
    growth_mb: Quantity = Field(description="peak minus idle")
    steps_mb: dict[str, float] = Field(description="resident size at each step")


class Flag(Record):
    """What makes the measurement doubtful."""

    name: str
    title: str
    observed: str
    limit: str
    remedy: str


class ProfileReport(Record):
    """``report.json``."""

    schema_: Literal["edgemamba.report/1", "edgemamba.report/2"] = Field(default="edgemamba.report/2", alias="schema")
    edgemamba: str
    commit: str | None
    created: str
    command: str = Field(description="reproduces this report")
    subject: Subject
    device: DeviceFacts
    runtime: str
    runtime_version: str
    runtime_note: str
    protocol: Protocol
    valid: bool
    flags: list[Flag]
    notes: list[str] = Field(description="what could not be observed")
    device_run: Latency
    end_to_end: Latency
    cold_start: ColdStart
    memory: Memory
    retention: Retention | ClassRetention | NotMeasured
    processes: list[ProcessSamples]
    environment: dict[str, str] = Field(description="versions that matter")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def dump_report(report: ProfileReport) -> str:
    """Strict JSON of a report, lists of numbers on one line; ``load_record(path, ProfileReport)`` reads it back."""
    text = json.dumps(report.model_dump(mode="json", by_alias=True), indent=2, allow_nan=False)
    return _NUMBER_LIST.sub(lambda found: "[" + re.sub(r"\s+", " ", found.group(1)) + "]", text) + "\n"
