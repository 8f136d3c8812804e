"""Reading what an agent says: tolerant of noise, strict about what is missing. A real process says it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from edgemamba.errors import DeviceError, VerificationError
from edgemamba.profiling.options import ProfileOptions
from edgemamba.profiling.session import (
    first_error,
    interpret,
    read_events,
    read_samples,
    reading,
    run_agent,
    split_processes,
)

PLAN = ProfileOptions().plan(0)


def events(runs: int = 3) -> list[dict]:
    golden = {
        "event": "golden",
        "ok": True,
        "mean_abs_diff": 1e-8,
        "max_abs_diff": 1e-6,
        "mask_agreement": 1.0,
    }
    cold = {"import_ns": 1, "load_ns": 2, "first_run_ns": 3, "process_to_first_result_ns": 9, "note": ""}
    return [
        {"event": "memory", "at": "start", "rss_bytes": 10, "peak_rss_bytes": 11},
        {"event": "hello", "runtime": "onnxruntime", "bundle": "b", "timer_overhead_ns": 30, "new": [1]},
        {"event": "memory", "at": "imports", "rss_bytes": 20, "peak_rss_bytes": 21},
        {"event": "cold", **cold},
        {**golden, "at": "before"},
        {"event": "sample", "phase": "warmup", "i": 0, "samples": [[5, 6]]},
        {"event": "sample", "phase": "run", "i": 0, "samples": [[10 + i, 20 + i] for i in range(runs)]},
        {"event": "sample", "phase": "run", "i": runs, "device_run_ns": 99, "end_to_end_ns": 100},
        {"event": "something new"},
        {**golden, "at": "after"},
        {"event": "done", "runs": runs},
    ]


def lines(found: list[dict]) -> str:
    return "".join(json.dumps(event) + "\n" for event in found)


def agent(folder: Path, body: str) -> Path:
    (folder / "agent.py").write_text(body)
    return folder


def test_lines_that_are_no_events_are_passed_over():
    text = "a library says hello\n" + lines(events()) + '[1]\n{"event": 3}\n{"event": "don'
    assert read_events(text.splitlines()) == events()


def test_samples_come_out_in_order_with_warm_up_first():
    found = interpret(events()).samples
    assert found.warmup_runs == 1
    assert found.device_run_ns == [5, 10, 11, 12, 99]
    assert found.end_to_end_ns == [6, 20, 21, 22, 100]
    assert [step.at for step in found.memory] == ["start", "imports"]


@pytest.mark.parametrize("missing", ["hello", "cold", "done"])
def test_an_incomplete_record_is_refused(missing):
    with pytest.raises(DeviceError, match=missing):
        interpret([event for event in events() if event["event"] != missing])


def test_a_value_of_another_type_is_refused():
    broken = events()
    broken[3]["load_ns"] = "long"
    with pytest.raises(DeviceError, match="not readable"):
        interpret(broken)


def test_a_process_is_driven_by_its_plan(tmp_path):
    """It is told when it was started: before its own first statement, by at most its life so far."""
    body = f"""
import time
first_ns = time.monotonic_ns()
import json, sys
plan = json.loads(sys.stdin.readline())
assert sys.argv[1:] == ["--plan", "-"] and plan["threads"] == 1, plan
assert {time.monotonic_ns()} < plan["spawned_ns"] < first_ns, plan
print("noise")
for event in {events()!r}:
    print(json.dumps(event))
"""
    assert run_agent(agent(tmp_path, body), PLAN).samples.device_run_ns[-1] == 99
    assert [path.name for path in tmp_path.iterdir()] == ["agent.py"]


def test_the_agents_own_error_is_shown(tmp_path):
    error = json.dumps({"event": "error", "message": "no such runtime", "hint": "pip install it"})
    body = f"print({error!r}); raise SystemExit(4)"
    with pytest.raises(DeviceError, match="no such runtime") as caught:
        run_agent(agent(tmp_path, body), PLAN)
    assert caught.value.hint == "pip install it"


def test_a_crash_shows_its_first_error(tmp_path):
    with pytest.raises(DeviceError, match="ModuleNotFoundError: No module named 'no_such_module'"):
        run_agent(agent(tmp_path, "import no_such_module"), PLAN)


def test_a_process_that_says_nothing_is_said(tmp_path):
    with pytest.raises(DeviceError, match="code 7: it said nothing"):
        run_agent(agent(tmp_path, "raise SystemExit(7)"), PLAN)


def test_wrong_golden_results_are_a_verification_failure(tmp_path):
    wrong = events()
    wrong[4]["ok"] = False
    body = f"import json\nfor event in {wrong[:5]!r}:\n    print(json.dumps(event))\nraise SystemExit(6)\n"
    with pytest.raises(VerificationError, match="golden"):
        run_agent(agent(tmp_path, body), PLAN)


def test_first_error_is_not_the_last_line():
    text = "[W] warning\nTraceback (most recent call last):\n  x\nValueError: bad\n\nDuring:\nKeyError: 2\n"
    assert first_error(text) == "ValueError: bad"
    assert first_error("killed\n") == "killed"
    assert first_error("") == ""


def test_several_processes_of_one_file_are_told_apart(tmp_path):
    path = tmp_path / "agent.jsonl"
    path.write_text(lines(events(3)) + lines(events(5)))
    found = split_processes(read_events(path.read_text().splitlines()))
    assert [len(process) for process in found] == [11, 11]
    assert [len(run.samples.device_run_ns) for run in read_samples(path)] == [5, 7]


def test_a_sensor_event_becomes_a_reading():
    event = {
        "event": "sensors", "at": "after", "loadavg": [0.5, 0.4, 0.3], "swap_used_bytes": 4096,
        "cpu": {
            "policy0": {"governor": "ondemand", "khz": 1500000},
            "policy4": {"governor": "performance", "khz": 2400000},
        },
        "temperature_c": {"cpu-thermal": 51.5, "gpu-thermal": 49.0},
        "throttled": {"bits": "0x50005", "now": 5, "since_boot": 5},
    }  # fmt: skip
    found = reading(event)
    assert (found.load_1min, found.governor, found.frequency_mhz) == (0.5, "ondemand, performance", 2400.0)
    assert (found.temperature_c, found.throttled_bits, found.swap_used_bytes) == (51.5, 0x50005, 4096)
    bare = reading({"event": "sensors", "at": "before"})
    assert {bare.load_1min, bare.governor, bare.temperature_c, bare.throttled_bits} == {None}
