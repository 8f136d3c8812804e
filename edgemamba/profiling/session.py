"""Drive the Bundle's own agent: fresh processes in its folder, a plan on stdin, JSON lines on stdout.

The same file measures on a board and here; this module starts it, reads what it says tolerantly, and turns it
into samples. A line that is not JSON (a library that prints) and an unknown event or key are passed over.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgemamba.errors import DeviceError, InputError, VerificationError, of_exit_code
from edgemamba.profiling.records import GoldenCheck, MemoryStep, ProcessSamples, Reading

Event = dict[str, Any]

AGENT = "agent.py"
# Beyond what the plan allows for: start, load, golden checks, a slow model's last run.
_GRACE_S = 300.0
_ERROR_LINE = re.compile(r"^\w[\w.]*(Error|Exception|Interrupt)\b.*")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one process does; the agent's own keys."""

    mode: str
    runtime: str
    threads: int
    warmup_runs: int
    warmup_s: float
    min_runs: int
    min_s: float
    max_s: float
    order_seed: int

    def line(self, spawned_ns: int) -> str:
        """The plan as the agent reads it; ``spawned_ns``: ``time.monotonic_ns()`` just before its process starts."""
        return json.dumps({**dataclasses.asdict(self), "spawned_ns": spawned_ns})

    def deadline_s(self) -> float:
        """After this long the process hangs."""
        return self.warmup_s + max(self.min_s, self.max_s) + _GRACE_S


@dataclasses.dataclass(frozen=True)
class AgentRun:
    """What one process said.

    Attributes:
        hello: versions and facts of the machine.
        runtime_version, note: of the runtime that ran the model.
        golden: checks in order.
        samples: None for a golden check without timing.
    """

    hello: Event
    runtime_version: str
    note: str
    golden: list[GoldenCheck]
    samples: ProcessSamples | None


def run_agent(bundle: Path, plan: Plan) -> AgentRun:
    """Run the agent once, in a fresh process of this interpreter.

    Args:
        bundle: checked folder that holds ``agent.py``.
        plan: what to do.

    Raises:
        VerificationError: the golden vectors do not come out.
        DeviceError: the agent failed or hangs; the message is its own first error.
    """
    spawned_ns = time.monotonic_ns()
    # -B: nothing may appear in a Bundle that its sums do not list.
    process = subprocess.Popen(
        [sys.executable, "-B", AGENT, "--plan", "-"],
        cwd=bundle,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    try:
        out, err = process.communicate(plan.line(spawned_ns), timeout=plan.deadline_s())
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"{AGENT} did not end within {plan.deadline_s():.0f} s", hint="is the machine overloaded?"
        ) from None
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    events = read_events(out.splitlines())
    _refuse_failure(events, err, process.returncode)
    return interpret(events)


def read_events(lines: Iterable[str]) -> list[Event]:
    """Events of JSON lines; anything else is passed over."""
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            events.append(event)
    return events


def split_processes(events: Sequence[Event]) -> list[list[Event]]:
    """Events of each process, which a ``hello`` opens (a memory step may come before it)."""
    starts = [index for index, event in enumerate(events) if event["event"] == "hello"]
    edges = [0, *(_with_prelude(events, index) for index in starts[1:]), len(events)]
    return [list(events[a:b]) for a, b in itertools.pairwise(edges) if b > a]


def interpret(events: Sequence[Event]) -> AgentRun:
    """What one process's events say.

    Raises:
        DeviceError: the record is incomplete, or a value is not what the protocol says.
    """
    try:
        hello = _one(events, "hello")
        cold = _one(events, "cold")
        golden = [_golden(event) for event in events if event["event"] == "golden"]
        _one(events, "done")
        return AgentRun(
            hello=hello,
            runtime_version=str(cold.get("runtime_version", hello.get("runtime_version", "unknown"))),
            note=str(cold.get("note", "")),
            golden=golden,
            samples=_samples(events, hello, cold, golden),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError(f"the agent's record is not readable: {_one_line(error)}", hint="was it cut short?") from None


def first_error(stderr: str) -> str:
    """The line of a failed process's standard error that says what went wrong first; empty without any."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    named = [line for line in lines if _ERROR_LINE.match(line)]
    return named[0] if named else (lines[0] if lines else "")


def refuse_wrong_results(checks: Sequence[GoldenCheck]) -> None:
    """Raise VerificationError unless every golden check passed: a fast wrong answer is a failure."""
    for check in checks:
        if not check.ok:
            raise VerificationError(
                f"wrong results on the golden pictures: mean |difference| {_figure(check.mean_abs_diff)}, "
                f"{check.agreement_of} {100 * check.agreement:.3f} %",
                hint="another version of the runtime may mend it; do not use this Bundle here until then",
            )


def _refuse_failure(events: Sequence[Event], stderr: str, returncode: int) -> None:
    failures = [event for event in events if event["event"] == "error"]
    for event in events:
        if event["event"] == "golden" and event.get("ok") is False:
            refuse_wrong_results([_golden(event)])
    if failures:
        failure = failures[0]
        kind = of_exit_code(failure.get("exit_code"))
        raise kind(f"{AGENT}: {failure.get('message', 'failed')}", hint=str(failure.get("hint", "")))
    if returncode:
        raise DeviceError(f"{AGENT} ended with code {returncode}: {first_error(stderr) or 'it said nothing'}")


def _one(events: Sequence[Event], name: str) -> Event:
    for event in events:
        if event["event"] == name:
            return event
    raise KeyError(f"no {name} event")


def _golden(event: Event) -> GoldenCheck:
    # Agents of older Bundles know masks only, and call their agreement so.
    agreement = event["mask_agreement"] if "mask_agreement" in event else event["agreement"]
    return GoldenCheck(
        at=str(event.get("at", "")),
        ok=event["ok"],
        mean_abs_diff=event["mean_abs_diff"],
        max_abs_diff=event["max_abs_diff"],
        agreement=agreement,
        agreement_of=str(event.get("agreement_of", "equal mask pixels")),
    )


def _samples(events: Sequence[Event], hello: Event, cold: Event, golden: list[GoldenCheck]) -> ProcessSamples | None:
    times: dict[str, list[tuple[int, int]]] = {"warmup": [], "run": []}
    for event in events:
        if event["event"] == "sample":
            pairs = event.get("samples") or [(event["device_run_ns"], event["end_to_end_ns"])]
            times[event["phase"]] += [(int(device), int(whole)) for device, whole in pairs]
    if not times["run"]:
        return None
    pairs = times["warmup"] + times["run"]
    return ProcessSamples(
        warmup_runs=len(times["warmup"]),
        device_run_ns=[device for device, _ in pairs],
        end_to_end_ns=[whole for _, whole in pairs],
        **{key: cold[key] for key in ("import_ns", "load_ns", "first_run_ns", "process_to_first_result_ns")},
        memory=[
            MemoryStep(**{key: event[key] for key in ("at", "rss_bytes", "peak_rss_bytes")})
            for event in events
            if event["event"] == "memory"
        ],
        readings=[reading(event) for event in events if event["event"] == "sensors"],
        golden=golden,
        timer_overhead_ns=hello.get("timer_overhead_ns"),
    )


def reading(event: Event) -> Reading:
    """A ``sensors`` event as the few figures that the validity rules look at."""
    policies = [policy for policy in (event.get("cpu") or {}).values() if isinstance(policy, dict)]
    governors = sorted({str(policy["governor"]) for policy in policies if policy.get("governor")})
    clocks = [policy["khz"] for policy in policies if policy.get("khz")]
    warmth = [*(event.get("temperature_c") or {}).values(), event.get("soc_temperature_c")]
    known = [value for value in warmth if value is not None]
    throttled = event.get("throttled")
    return Reading(
        at=str(event.get("at", "")),
        load_1min=(event.get("loadavg") or [None])[0],
        governor=", ".join(governors) or None,
        frequency_mhz=max(clocks) / 1e3 if clocks else None,
        temperature_c=max(known) if known else None,
        throttled_bits=int(throttled["bits"], 16) if throttled else None,
        swap_used_bytes=event.get("swap_used_bytes"),
    )


def _with_prelude(events: Sequence[Event], hello: int) -> int:
    """Index of the first event that belongs to the process whose hello stands at ``hello``."""
    first = hello
    while first and events[first - 1]["event"] == "memory" and events[first - 1].get("at") in ("start", "imports"):
        first -= 1
    return first


def _figure(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def read_samples(path: Path) -> list[AgentRun]:
    """Runs recorded on a board (``agent.jsonl``; several may stand one after the other).

    Raises:
        InputError: missing, or no record of an agent.
        VerificationError: the golden vectors did not come out there.
        DeviceError: the agent failed there, or a record is incomplete.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    events = read_events(text.splitlines())
    if not any(event["event"] == "hello" for event in events):
        raise InputError(
            f"{path} is not a record of {AGENT}",
            hint="copy agent.jsonl from the board, as python agent.py wrote it",
        )
    runs = []
    for process in split_processes(events):
        _refuse_failure(process, "", 0)
        runs.append(interpret(process))
    return runs
