"""Measure the model of this Bundle: golden check, cold start, latency, memory.

``python agent.py`` measures with a sensible plan, prints a summary and writes ``agent.jsonl``.
``python agent.py --plan FILE`` (or ``-`` for standard input) takes a JSON plan and writes JSON lines on
standard output; so ``edgemamba profile`` starts it, a fresh process for every measurement.

What is timed, in nanoseconds of a monotonic clock, one image after the other (batch 1):
  device_run   the runtime's call alone: float32 input in, output out
  end_to_end   decoded 8-bit picture to result: preprocessing, device_run, then mask, best classes or nothing
Pictures are the golden phantoms at the model's own size; reading and decoding files is not in it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import platform
import random
import sys
import time
import traceback
from typing import Any, Callable

FOLDER = pathlib.Path(__file__).resolve().parent
# Nothing may appear in the Bundle that SHA256SUMS does not list. `python -I` leaves the script's folder out.
sys.dont_write_bytecode = True
if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))

import sensors  # noqa: E402
import summary  # noqa: E402

DEFAULTS: dict[str, Any] = {
    "mode": "latency",
    "runtime": "auto",
    "threads": 1,
    "warmup_runs": 10,
    "warmup_s": 1.0,
    "min_runs": 100,
    "min_s": 5.0,
    "max_s": 60.0,
    "order_seed": 0,
    "spawned_ns": None,
}
MODES = ("latency", "golden")
BATCH = 50

Emit = Callable[[Any], None]


class PlanError(Exception):
    """The plan cannot be carried out; one line."""


def read_plan(document: Any) -> dict[str, Any]:
    """A complete plan from a partial one.

    ``spawned_ns`` (optional) is the starter's ``time.monotonic_ns()`` just before it started this process;
    without it the kernel's start time is used, which has a resolution of 10 ms.

    Raises:
        PlanError: unknown key, or a value of another type or out of range.
    """
    if not isinstance(document, dict):
        raise PlanError(f"a plan is a JSON object, not {type(document).__name__}")
    unknown = sorted(set(document) - set(DEFAULTS))
    if unknown:
        raise PlanError(f"the plan has unknown keys: {', '.join(unknown)}")
    plan = {**DEFAULTS, **document}
    if plan["mode"] not in MODES:
        raise PlanError(f"mode {plan['mode']!r} is none of {', '.join(MODES)}")
    for key, least in (("threads", 1), ("warmup_runs", 0), ("min_runs", 1), ("order_seed", 0)):
        if type(plan[key]) is not int or plan[key] < least:
            raise PlanError(f"{key} is {plan[key]!r}, expected a whole number from {least}")
    for key in ("warmup_s", "min_s", "max_s"):
        if type(plan[key]) not in (int, float) or not 0 <= plan[key] < math.inf:
            raise PlanError(f"{key} is {plan[key]!r}, expected seconds")
    if plan["spawned_ns"] is not None and type(plan["spawned_ns"]) is not int:
        raise PlanError(f"spawned_ns is {plan['spawned_ns']!r}, expected nanoseconds")
    return plan


class Measurement:
    """One run of a plan; every result goes through ``emit`` as soon as it is there."""

    def __init__(self, plan: dict[str, Any], emit: Emit) -> None:
        self.plan = plan
        self.emit = emit
        self.idle_ns = 0

    def run(self) -> None:
        """Carry out the plan.

        Raises:
            runner.BundleError: damaged Bundle, missing runtime, or wrong results.
        """
        started_ns, source = self._process_start()
        self._memory("start")
        begin = time.perf_counter_ns()
        self._import()
        import_ns = time.perf_counter_ns() - begin
        self._memory("imports")
        # From here on the peak is that of the model, not of the imports.
        self._hello(sensors.reset_peak())
        self._cold(started_ns, source, import_ns)
        self.runner.check_files(FOLDER, self.manifest)
        self._golden("before")
        if self.plan["mode"] == "latency":
            self.emit({"event": "sensors", "at": "before", **sensors.read()})
            self._loop("warmup", self.plan["warmup_runs"], self.plan["warmup_s"], math.inf)
            self._memory("warm")
            runs = self._loop("run", self.plan["min_runs"], self.plan["min_s"], self.plan["max_s"])
            self.emit({"event": "sensors", "at": "after", **sensors.read()})
            self._golden("after")
        else:
            runs = 0
        self._memory("end")
        self.emit({"event": "done", "runs": runs})

    def _process_start(self) -> tuple[int, str]:
        """Start of this process on the clock of perf_counter_ns, and who says so."""
        if self.plan["spawned_ns"] is not None:
            offset = time.perf_counter_ns() - time.monotonic_ns()
            return self.plan["spawned_ns"] + offset, "starter"
        return time.perf_counter_ns() - sensors.process_age_ns(), "kernel"

    def _import(self) -> None:
        """Everything that a first prediction imports: numpy, Pillow, the runtime."""
        import images
        import outputs
        import runner

        self.images, self.runner = images, runner
        self.manifest = runner.load_manifest(FOLDER)
        self.output = outputs.open_output(self.manifest)
        self.runtime, self.version, _ = runner.choose_runtime(self.manifest, self.plan["runtime"])

    def _hello(self, peak_reset: bool) -> None:
        import numpy

        begin = time.perf_counter_ns()
        clock = time.perf_counter_ns
        readings = [clock() for _ in range(1000)]
        steps = [b - a for a, b in zip(readings, readings[1:])]
        self.emit(
            {
                "event": "hello",
                "protocol": 1,
                "bundle": self.manifest["name"],
                "manifest_sha256": self.runner.hash_file(FOLDER / "manifest.json"),
                "python": platform.python_version(),
                "numpy": numpy.__version__,
                "runtime": self.runtime,
                "runtime_version": self.version,
                "threads": self.plan["threads"],
                "plan": self.plan,
                "timer_overhead_ns": sorted(steps)[len(steps) // 2],
                "timer_step_ns": min((step for step in steps if step), default=0),
                "peak_reset": peak_reset,
                "machine": sensors.facts(),
            }
        )
        self.idle_ns += time.perf_counter_ns() - begin

    def _cold(self, started_ns: int, source: str, import_ns: int) -> None:
        begin = time.perf_counter_ns()
        golden = self.runner.load_golden(FOLDER, self.manifest)
        pictures = list(golden["images"])
        random.Random(self.plan["order_seed"]).shuffle(pictures)
        self.pictures = pictures
        self.idle_ns += time.perf_counter_ns() - begin
        begin = time.perf_counter_ns()
        self.session = self.runner.open_session(FOLDER, self.manifest, self.plan["runtime"], self.plan["threads"])
        load_ns = time.perf_counter_ns() - begin - self.session.build_ns
        self.idle_ns += self.session.build_ns
        self._memory("load")
        device_ns, end_to_end_ns = self._once(pictures[0])
        total = time.perf_counter_ns() - started_ns - self.idle_ns
        self._memory("first")
        self.emit(
            {
                "event": "cold",
                "runtime_version": self.session.version,
                "note": self.session.note,
                "import_ns": import_ns,
                "load_ns": load_ns,
                "engine_build_ns": self.session.build_ns,
                "first_run_ns": device_ns,
                "first_end_to_end_ns": end_to_end_ns,
                "process_to_first_result_ns": total,
                "process_start_by": source,
            }
        )

    def _once(self, picture: Any) -> tuple[int, int]:
        """(device_run, end_to_end) of one picture, in ns."""
        preprocess = self.manifest["preprocess"]
        clock, size = time.perf_counter_ns, tuple(preprocess["size"])
        begin = clock()
        x = self.images.to_input(picture, size, preprocess["scale"])
        before = clock()
        y = self.session.run(x)
        after = clock()
        self.output.finish(y)
        return after - before, clock() - begin

    def _loop(self, phase: str, least: int, seconds: float, cap: float) -> int:
        """Run until both ``least`` runs and ``seconds`` are reached, but no longer than ``cap`` seconds."""
        begin = time.perf_counter_ns()
        done = 0
        batch: list[tuple[int, int]] = []
        while True:
            elapsed = (time.perf_counter_ns() - begin) / 1e9
            if (done >= least and elapsed >= seconds) or (done > 0 and elapsed >= cap):
                break
            batch.append(self._once(self.pictures[done % len(self.pictures)]))
            done += 1
            if len(batch) == BATCH:
                self._samples(phase, done, batch)
                batch = []
        self._samples(phase, done, batch)
        return done

    def _samples(self, phase: str, done: int, batch: list[tuple[int, int]]) -> None:
        if batch:
            self.emit({"event": "sample", "phase": phase, "i": done - len(batch), "samples": batch})

    def _golden(self, at: str) -> None:
        found = self.runner.check_golden(FOLDER, self.manifest, self.session)
        self.emit({"event": "golden", "at": at, **found})
        if not found["ok"]:
            message = (
                f"wrong results on the golden pictures {at} measuring: mean |difference| "
                f"{found['mean_abs_diff']}, {found['agreement_of']} {found['agreement']:.5f}"
            )
            raise self.runner.BundleError(message, "do not use this Bundle with this runtime", 6)

    def _memory(self, at: str) -> None:
        begin = time.perf_counter_ns()
        self.emit({"event": "memory", "at": at, **sensors.memory()})
        self.idle_ns += time.perf_counter_ns() - begin


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="agent.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", metavar="FILE", help="JSON plan, - for standard input; results go to stdout")
    parser.add_argument("--runtime", default="auto", help="auto, onnxruntime, litert or tensorrt")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the runtime, default 1")
    parser.add_argument("--runs", type=int, default=200, help="at least so many timed runs, default 200")
    parser.add_argument("--seconds", type=float, default=10.0, help="and at least so many seconds, default 10")
    parser.add_argument("-o", "--out", default="agent.jsonl", metavar="FILE", help="default: agent.jsonl")
    return parser.parse_args(arguments)


def failure(error: BaseException) -> tuple[dict[str, Any], int]:
    """Event and exit code for what ended the run."""
    message, hint, code = str(error) or type(error).__name__, "", 1
    if isinstance(error, KeyboardInterrupt):
        message, code = "interrupted", 130
    elif isinstance(error, ImportError):
        hint, code = "pip install -r requirements.txt", 4
    elif isinstance(error, PlanError):
        code = 2
    elif isinstance(error, OSError):
        code = 3
    elif type(error).__name__ == "BundleError":
        message, hint, code = error.message, error.hint, error.exit_code  # type: ignore[attr-defined]
    return {"event": "error", "type": type(error).__name__, "message": message, "hint": hint, "exit_code": code}, code


def by_plan(source: str) -> int:
    """Carry out a plan; every line on standard output is one event."""
    # What libraries print goes to stderr, so that stdout holds events only.
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(event: dict[str, Any]) -> None:
        stream.write(json.dumps(event) + "\n")
        stream.flush()

    try:
        begin = time.perf_counter_ns()
        text = sys.stdin.read() if source == "-" else pathlib.Path(source).read_text(encoding="utf-8")
        try:
            measurement = Measurement(read_plan(json.loads(text)), emit)
        except ValueError as error:
            raise PlanError(f"the plan is not JSON: {error}") from None
        measurement.idle_ns += time.perf_counter_ns() - begin
        measurement.run()
        return 0
    except BrokenPipeError:
        return 1
    except (Exception, KeyboardInterrupt) as error:
        event, code = failure(error)
        if code == 1:
            traceback.print_exc()
        emit(event)
        return code


def by_hand(options: argparse.Namespace) -> int:
    """Measure with a sensible plan, write the events to a file and print a summary."""
    events: list[dict[str, Any]] = []
    out = pathlib.Path(options.out)
    temporary = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        document = {"runtime": options.runtime, "threads": options.threads, "min_runs": options.runs}
        plan = read_plan({**document, "min_s": options.seconds, "max_s": max(60.0, options.seconds)})
        with temporary.open("w", encoding="utf-8") as stream:

            def emit(event: dict[str, Any]) -> None:
                events.append(event)
                stream.write(json.dumps(event) + "\n")

            Measurement(plan, emit).run()
        temporary.replace(out)
    except (Exception, KeyboardInterrupt) as error:
        event, code = failure(error)
        if code == 1:
            traceback.print_exc()
        print(f"error: {event['message']}", file=sys.stderr)
        if event["hint"]:
            print(f"hint: {event['hint']}", file=sys.stderr)
        return code
    finally:
        if temporary.exists():
            temporary.unlink()
    print("\n".join([*summary.lines(events), f"Written  {out}"]))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the whole."""
    options = parse(arguments)
    return by_hand(options) if options.plan is None else by_plan(options.plan)


if __name__ == "__main__":
    sys.exit(main())
