"""Put a report together from what the measuring processes said and what the Bundle says about itself."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from edgemamba import __version__
from edgemamba.bundle.check import MANIFEST
from edgemamba.errors import UsageError
from edgemamba.files import sha256_file
from edgemamba.presets import Device, devices
from edgemamba.profiling.options import ProfileOptions, protocol_of
from edgemamba.profiling.quality import NotMeasured
from edgemamba.profiling.records import (
    ColdStart,
    DeviceFacts,
    Memory,
    ProcessSamples,
    ProfileReport,
    Role,
    SizedFile,
    Subject,
)
from edgemamba.profiling.session import AgentRun
from edgemamba.profiling.stats import latency, process_median
from edgemamba.profiling.validity import judge, unobserved
from edgemamba.records import Manifest
from edgemamba.versions import commit, package_version

# Packages whose version can change a figure.
_PACKAGES = ("numpy", "torch", "onnxruntime", "ai-edge-litert", "Pillow")


def assemble(
    bundle: Path, manifest: Manifest, device: Device, options: ProfileOptions, runs: Sequence[AgentRun]
) -> ProfileReport:
    """Everything but the retention.

    Args:
        bundle, manifest: checked.
        device: as named on the command line.
        options: how it was measured.
        runs: at least one with timed samples.

    Raises:
        UsageError: samples of a board that no device describes.
    """
    processes = [run.samples for run in runs if run.samples is not None]
    first = runs[0]
    facts = _device_facts(device, options, first)
    protocol = options.protocol() if options.samples is None else protocol_of(first.hello["plan"], len(processes))
    cores = int(facts.facts.get("cores") or os.cpu_count() or 1)
    flags = judge(processes, cores=cores, emulated=facts.emulated)
    return ProfileReport(
        edgemamba=__version__,
        commit=commit(),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=options.command(manifest.name),
        subject=_subject(bundle, manifest),
        device=facts,
        runtime=str(first.hello.get("runtime", manifest.runtime)),
        runtime_version=first.runtime_version,
        runtime_note=first.note,
        protocol=protocol,
        valid=not flags,
        flags=flags,
        notes=unobserved(processes),
        device_run=latency([process.device_run_ns[process.warmup_runs :] for process in processes]),
        end_to_end=latency([process.end_to_end_ns[process.warmup_runs :] for process in processes]),
        cold_start=cold_start(processes),
        memory=memory(processes),
        retention=NotMeasured(reason="not measured yet"),
        processes=processes,
        environment=_versions(first),
    )


def cold_start(processes: Sequence[ProcessSamples]) -> ColdStart:
    """Start of the process to its first result, over fresh processes."""

    def middle(values: Sequence[int]) -> float:
        return process_median([value / 1e6 for value in values]).value or 0.0

    return ColdStart(
        total_ms=process_median([process.process_to_first_result_ns / 1e6 for process in processes]),
        import_ms=middle([process.import_ns for process in processes]),
        load_ms=middle([process.load_ns for process in processes]),
        first_run_ms=middle([process.first_run_ns for process in processes]),
        n=len(processes),
    )


def memory(processes: Sequence[ProcessSamples]) -> Memory:
    """Peak after all runs, and its growth over the process that has only imported the runtime."""
    peaks, idles = [], []
    for process in processes:
        at = {step.at: step for step in process.memory}
        if "imports" in at:
            idles.append(at["imports"].rss_bytes / 1e6)
            peaks.append(max(step.peak_rss_bytes for step in process.memory) / 1e6)
    names = dict.fromkeys(step.at for process in processes for step in process.memory)
    steps = {}
    for name in names:
        sizes = [step.rss_bytes / 1e6 for process in processes for step in process.memory if step.at == name]
        steps[name] = process_median(sizes).value or 0.0
    growth = [peak - idle for peak, idle in zip(peaks, idles, strict=True)]
    return Memory(
        peak_mb=process_median(peaks),
        idle_mb=process_median(idles),
        growth_mb=process_median(growth),
        steps_mb=steps,
    )


def _subject(bundle: Path, manifest: Manifest) -> Subject:
    files = [SizedFile(path=e.path, bytes=e.bytes, role=_role(e.path, manifest)) for e in manifest.files]
    artifact = next(entry for entry in manifest.files if entry.path == manifest.artifact)
    weights = manifest.source.get("weights_sha256")
    return Subject(
        name=manifest.name,
        model=manifest.model,
        task=manifest.task,
        parameters=manifest.parameters,
        target=manifest.target,
        format=manifest.format,
        precision=manifest.precision,
        artifact=manifest.artifact,
        artifact_bytes=artifact.bytes,
        artifact_sha256=artifact.sha256,
        manifest_sha256=sha256_file(bundle / MANIFEST),
        bundle_bytes=sum(entry.bytes for entry in manifest.files),
        input_shape=manifest.inputs[0].shape,
        weights_sha256=weights if isinstance(weights, str) else None,
        quantization=manifest.quantization,
        verification=manifest.verification,
        stages=manifest.stages,
        files=files,
    )


def _role(path: str, manifest: Manifest) -> Role:
    if path == manifest.artifact:
        return "model"
    if path == manifest.golden.file:
        return "golden"
    return "code" if path.endswith(".py") else "text"


def _device_facts(device: Device, options: ProfileOptions, run: AgentRun) -> DeviceFacts:
    facts = dict(run.hello.get("machine") or {})
    facts["python"] = run.hello.get("python")
    board = str(facts.get("board") or "")
    if options.samples is not None and device.name == "host":
        device = next((known for known in devices().values() if board.startswith(known.title)), device)
        if device.name == "host":
            raise UsageError(
                f"the samples are of {board or 'an unnamed machine'}, which no device describes",
                hint=f"say which with --device: {', '.join(name for name in devices() if name != 'host')}",
            )
    title = device.title if device.name != "host" else "this host"
    return DeviceFacts(name=device.name, title=title, emulated=_emulated(facts), facts=facts)


def _emulated(facts: dict[str, object]) -> bool:
    """qemu-user shows the host's processor beside a foreign architecture, or names itself."""
    cpu = str(facts.get("cpu") or "").lower()
    foreign = str(facts.get("architecture")) in ("aarch64", "armv7l") and ("intel" in cpu or "amd" in cpu)
    return foreign or "qemu" in cpu


def _versions(run: AgentRun) -> dict[str, str]:
    """Of the measuring process, and of what scored beside it."""
    versions = {"python": str(run.hello.get("python")), "numpy": str(run.hello.get("numpy"))}
    for package in _PACKAGES:
        if (version := package_version(package)) is not None:
            versions.setdefault(package, version)
    versions["host python"] = platform.python_version()
    return versions
