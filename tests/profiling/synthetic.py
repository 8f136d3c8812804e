"""Samples of machines that do not exist: seeded, and bad in exactly one way when asked."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgemamba.profiling.assemble import cold_start, memory
from edgemamba.profiling.options import ProfileOptions
from edgemamba.profiling.quality import NotMeasured
from edgemamba.profiling.records import (
    DeviceFacts,
    GoldenCheck,
    MemoryStep,
    ProcessSamples,
    ProfileReport,
    Reading,
    SizedFile,
    Subject,
)
from edgemamba.profiling.stats import latency
from edgemamba.profiling.validity import judge, unobserved

STEPS = ("start", "imports", "load", "first", "warm", "end")


def reading(at: str, **changes: Any) -> Reading:
    values: dict[str, Any] = {
        "at": at, "load_1min": 0.1, "governor": "performance", "frequency_mhz": 2400.0, "temperature_c": 45.0,
        "throttled_bits": 0, "swap_used_bytes": 0,
    }  # fmt: skip
    return Reading(**{**values, **changes})


def golden(at: str, ok: bool = True, mean: float = 1e-7) -> GoldenCheck:
    return GoldenCheck(at=at, ok=ok, mean_abs_diff=mean, max_abs_diff=1e-5, agreement=1.0)


def process(
    seed: int = 0,
    *,
    runs: int = 200,
    warmup: int = 10,
    milliseconds: float = 12.0,
    spread: float = 0.01,
    device_ns: np.ndarray | None = None,
    readings: list[Reading] | None = None,
    checks: list[GoldenCheck] | None = None,
) -> ProcessSamples:
    """One quiet process, or one with the given timed runs, sensor readings or golden checks."""
    rng = np.random.default_rng(seed)
    timed = milliseconds * 1e6 * (1 + spread * rng.standard_normal(runs)) if device_ns is None else device_ns
    device = [int(value) for value in (*(milliseconds * 1.4e6 for _ in range(warmup)), *timed)]
    return ProcessSamples(
        warmup_runs=warmup,
        device_run_ns=device,
        end_to_end_ns=[value + 900_000 for value in device],
        import_ns=120_000_000 + seed,
        load_ns=40_000_000,
        first_run_ns=25_000_000,
        process_to_first_result_ns=230_000_000,
        memory=[
            MemoryStep(at=at, rss_bytes=(20 + 9 * step) * 10**6, peak_rss_bytes=(21 + 9 * step) * 10**6)
            for step, at in enumerate(STEPS)
        ],
        readings=readings if readings is not None else [reading("before"), reading("after")],
        golden=checks if checks is not None else [golden("before"), golden("after")],
        timer_overhead_ns=40,
    )


def report(processes: list[ProcessSamples] | None = None, **subject: Any) -> ProfileReport:
    """A whole report of a quiet machine; keywords change the subject."""
    processes = processes if processes is not None else [process(seed) for seed in range(5)]
    flags = judge(processes, cores=4, emulated=False)
    values: dict[str, Any] = {
        "name": "ul-vm-unet-cpu-fp32", "model": "ul-vm-unet", "parameters": 49_457, "target": "cpu",
        "format": "onnx", "precision": "fp32", "artifact": "model.onnx", "artifact_bytes": 420_000,
        "artifact_sha256": "a" * 64,
        "manifest_sha256": "b" * 64, "bundle_bytes": 520_000, "input_shape": [1, 3, 256, 256],
        "weights_sha256": "c" * 64,
        "quantization": None, "verification": {"images": 100}, "stages": [],
        "files": [
            SizedFile(path="model.onnx", bytes=420_000, role="model"),
            SizedFile(path="golden.npz", bytes=60_000, role="golden"),
            SizedFile(path="agent.py", bytes=20_000, role="code"),
            SizedFile(path="README.md", bytes=20_000, role="text"),
        ],
    }  # fmt: skip
    return ProfileReport(
        edgemamba="0.1.0",
        commit=None,
        created="2026-01-02T03:04:05+00:00",
        command="edgemamba profile ul-vm-unet-cpu-fp32",
        subject=Subject(**{**values, **subject}),
        device=DeviceFacts(name="host", title="this host", emulated=False, facts={"cpu": "A", "cores": 4}),
        runtime="onnxruntime",
        runtime_version="1.20.0",
        runtime_note="",
        protocol=ProfileOptions().protocol(),
        valid=not flags,
        flags=flags,
        notes=unobserved(processes),
        device_run=latency([one.device_run_ns[one.warmup_runs :] for one in processes]),
        end_to_end=latency([one.end_to_end_ns[one.warmup_runs :] for one in processes]),
        cold_start=cold_start(processes),
        memory=memory(processes),
        retention=NotMeasured(reason="no data here", hint="--data-root DIR"),
        processes=processes,
        environment={"numpy": "2.0"},
    )
