"""What a person can choose about a measurement."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from edgemamba.board.runner import RUNTIMES
from edgemamba.errors import UsageError, did_you_mean
from edgemamba.profiling.records import Protocol
from edgemamba.profiling.session import Plan

_QUICK_PROCESSES = 2
_QUICK_S = 1.5
_QUICK_WARMUP_S = 0.3


@dataclasses.dataclass(frozen=True)
class ProfileOptions:
    """How ``profile`` measures.

    Attributes:
        device: host, or with ``samples`` a name of profiles/devices.
        samples: ``agent.jsonl`` of a board; its latency and memory are reported instead of this host's.
        runtime: auto, onnxruntime, litert or tensorrt.
        threads: CPU threads of the runtime.
        processes: fresh processes.
        quick: two short processes; for a look, never valid.
        warmup_runs, warmup_s: both are reached before timing, in each process.
        min_runs, min_s, max_s: timed runs and seconds a process; both minima are reached, max_s ends it.
        images: held-out images to score; None takes all, up to 400 spread evenly.
        disagreements: pictures of the largest ones, beside worst, median and best; 0 takes no picture.
        show_ids: name patients instead of numbering them.
        run: folder of the run that the Bundle was made from.
        data_root: folder of its data.
        out: folder of report.json and report.html; None puts it beside the Bundle.
    """

    device: str = "host"
    samples: Path | None = None
    runtime: str = "auto"
    threads: int = 1
    processes: int = 5
    quick: bool = False
    warmup_runs: int = 10
    warmup_s: float = 1.0
    min_runs: int = 100
    min_s: float = 5.0
    max_s: float = 60.0
    images: int | None = None
    disagreements: int = 3
    show_ids: bool = False
    run: Path | None = None
    data_root: Path | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise UsageError(f"no runtime is named {self.runtime!r}", hint=did_you_mean(self.runtime, RUNTIMES))
        for name in ("threads", "processes", "min_runs"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.images is not None and self.images < 1:
            raise UsageError(f"images is {self.images}, expected at least 1")

    def plan(self, process: int, mode: str = "latency") -> Plan:
        """What the agent is told; ``process`` seeds the order of the pictures."""
        return Plan(
            mode=mode,
            runtime=self.runtime,
            threads=self.threads,
            warmup_runs=self.warmup_runs,
            warmup_s=_QUICK_WARMUP_S if self.quick else self.warmup_s,
            min_runs=min(self.min_runs, 30) if self.quick else self.min_runs,
            min_s=_QUICK_S if self.quick else self.min_s,
            max_s=min(self.max_s, 10 * _QUICK_S) if self.quick else self.max_s,
            order_seed=process,
        )

    def process_count(self) -> int:
        """Fresh processes."""
        return min(self.processes, _QUICK_PROCESSES) if self.quick else self.processes

    def protocol(self) -> Protocol:
        """The protocol as it is recorded."""
        return protocol_of(dataclasses.asdict(self.plan(0)), self.process_count())

    def command(self, bundle: str) -> str:
        """Command line that measures the same; paths are left to the reader."""
        words = ["edgemamba", "profile", bundle]
        if self.samples is not None:
            words += ["--samples", self.samples.name, "--device", self.device]
        if self.quick:
            words.append("--quick")
        for field in dataclasses.fields(self):
            if (
                field.name in ("runtime", "threads", "processes", "images")
                and getattr(self, field.name) != field.default
            ):
                words += [f"--{field.name}", str(getattr(self, field.name))]
        if self.data_root is not None:
            words += ["--data-root", "DATA"]
        return shlex.join(words)


def protocol_of(plan: dict[str, object], processes: int) -> Protocol:
    """The protocol of an agent's plan, with its description.

    Args:
        plan: keys of ``Plan``, as the agent echoes them.
        processes: fresh processes that followed it.
    """
    keys = ("threads", "warmup_runs", "warmup_s", "min_runs", "min_s", "max_s")
    numbers = {key: plan[key] for key in keys}
    text = (
        f"{processes} fresh process{'es' if processes > 1 else ''} one after the other. In each: load, "
        "first run, golden "
        f"check, warm-up until {numbers['warmup_runs']} runs and {numbers['warmup_s']:g} s, then timed "
        "runs until "
        f"{numbers['min_runs']} runs and {numbers['min_s']:g} s (at most {numbers['max_s']:g} s), golden "
        "check. Batch 1, the "
        "next image after the previous result, preprocessed golden pictures in turn. runtime call: float32 "
        "input in, "
        "output out; end to end: decoded picture to result (mask, best classes). Monotonic clock, every sample kept."
    )
    return Protocol.model_validate({"processes": processes, **numbers, "text": text})
