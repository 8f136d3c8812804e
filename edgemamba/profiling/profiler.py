"""Measure one Bundle and write its report: numbered steps, each a line with its result and time."""

from __future__ import annotations

import time
from pathlib import Path

from edgemamba.bundle.check import MANIFEST, check
from edgemamba.console import Console
from edgemamba.errors import InputError, UsageError
from edgemamba.files import refuse_unwritable, sha256_file, write_together
from edgemamba.presets import Device, find_device
from edgemamba.profiling import class_retention, lines, retention
from edgemamba.profiling.assemble import assemble
from edgemamba.profiling.options import ProfileOptions
from edgemamba.profiling.quality import ClassRetention, NotMeasured, Retention
from edgemamba.profiling.records import ProfileReport, dump_report
from edgemamba.profiling.reference import Reference, find_reference
from edgemamba.profiling.session import AGENT, AgentRun, read_samples, refuse_wrong_results, run_agent
from edgemamba.records import Manifest

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
_STEPS = 8


def profile(bundle: Path, options: ProfileOptions, console: Console) -> ProfileReport:
    """Measure a Bundle on this host, or take a board's samples; write report.json and report.html.

    Args:
        bundle: folder that export wrote.
        options: how.
        console: progress.

    Returns:
        the report; it is written to ``report_folder(bundle, options)``.

    Raises:
        InputError: not a Bundle, damaged, or an option names the wrong run or data.
        UsageError: unknown device, or one that is not this host without its samples.
        VerificationError: the artifact gives wrong results.
        DeviceError: the measuring process failed.
    """
    device = find_device(options.device)
    if options.samples is None and device.name != "host":
        raise _remote(device, bundle)
    steps = _Steps(console)
    manifest = check(bundle)
    out = report_folder(bundle, options)
    refuse_unwritable(out)
    steps.done(1, "files", f"{len(manifest.files)} files agree with the manifest")
    if options.samples is None:
        runs = _measure(bundle, options, steps, console)
    else:
        runs = _imported(options.samples, bundle, manifest, steps)
    report = assemble(bundle, manifest, device, options, runs)
    steps.done(3, "cold start", lines.cold_start(report))
    steps.done(4, "latency", lines.latency(report))
    steps.done(5, "memory", lines.memory(report))
    steps.done(6, "size", lines.size(report))
    kept = _retention(bundle, manifest, options, console)
    steps.done(7, "accuracy retention", lines.retention(kept))
    report = report.model_copy(update={"retention": kept})
    _write(report, out)
    steps.done(8, "validity", lines.validity(report))
    return report


def report_folder(bundle: Path, options: ProfileOptions) -> Path:
    """Where the report of a Bundle goes: never into the Bundle, whose files are listed."""
    if options.out is not None:
        if options.out.resolve().is_relative_to(bundle.resolve()):
            raise UsageError(f"{options.out} lies inside the Bundle", hint="choose an --out beside it")
        return options.out
    resolved = bundle.resolve()
    return resolved.with_name(resolved.name + "-report")


class _Steps:
    """Numbered lines; each says how long it took since the one before."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.since = time.monotonic()

    def done(self, number: int, title: str, result: str) -> None:
        now = time.monotonic()
        self.console.line(f"[{number}/{_STEPS}] {title}: {result} ({now - self.since:.1f} s)")
        self.since = now


def _remote(device: Device, bundle: Path) -> UsageError:
    return UsageError(
        f"{device.title} is not this host, and edgemamba does not reach boards over the network",
        hint=f"on the board: python {AGENT} in the Bundle's folder; then here: edgemamba profile {bundle} "
        f"--device {device.name} --samples agent.jsonl",
    )


def _measure(bundle: Path, options: ProfileOptions, steps: _Steps, console: Console) -> list[AgentRun]:
    """A golden check, then the fresh processes."""
    golden = run_agent(bundle, options.plan(0, "golden"))
    refuse_wrong_results(golden.golden)
    steps.done(2, "golden vectors", lines.golden([golden]))
    count = options.process_count()
    with console.bar("measure", count) as bar:
        runs = []
        for process in range(count):
            runs.append(run_agent(bundle, options.plan(process)))
            bar.advance()
    return runs


def _imported(path: Path, bundle: Path, manifest: Manifest, steps: _Steps) -> list[AgentRun]:
    """Runs recorded on a board, if they are of this Bundle."""
    runs = read_samples(path)
    expected = sha256_file(bundle / MANIFEST)
    for run in runs:
        named, digest = str(run.hello.get("bundle")), str(run.hello.get("manifest_sha256"))
        if digest != expected:
            other = f"the Bundle {named}, this one is {manifest.name}" if named != manifest.name else f"another {named}"
            raise InputError(
                f"{path} was measured with {other} (manifest SHA-256 {digest[:12]}, here {expected[:12]})",
                hint="give the Bundle that was copied to the board, or copy this one there and measure again",
            )
        refuse_wrong_results(run.golden)
    if all(run.samples is None for run in runs):
        raise InputError(f"{path} holds no timed runs", hint=f"run python {AGENT} on the board without --plan")
    steps.done(2, "golden vectors", lines.golden(runs))
    return runs


def _retention(
    bundle: Path, manifest: Manifest, options: ProfileOptions, console: Console
) -> Retention | ClassRetention | NotMeasured:
    if manifest.task == "tensor":
        return NotMeasured(
            reason="the task of this network is not known",
            hint="its agreement with fp32 PyTorch stands under how it was made",
        )
    if options.samples is not None:
        return NotMeasured(
            reason="not measured on that device: its samples hold times and the golden check only",
            hint="the same Bundle profiled on this host gives the retention",
        )
    found = find_reference(manifest, run=options.run, data_root=options.data_root)
    if not isinstance(found, Reference):
        console.warn(f"no accuracy retention: {found.reason}; {found.hint}" if found.hint else found.reason)
        return found
    measure = class_retention.measure if manifest.task == "classification" else retention.measure
    return measure(
        found,
        bundle,
        console,
        runtime=options.runtime,
        threads=options.threads,
        images=options.images,
        disagreements=options.disagreements,
        show_ids=options.show_ids,
    )


def _write(report: ProfileReport, folder: Path) -> None:
    from edgemamba.report import render

    texts = {REPORT_JSON: dump_report(report), REPORT_HTML: render([report])}
    write_together({folder / name: text.encode() for name, text in texts.items()})
