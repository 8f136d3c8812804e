"""Every rule on a sample that breaks it, and none on a quiet machine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgemamba.profiling.records import ProcessSamples
from edgemamba.profiling.validity import THRESHOLDS, judge, unobserved
from profiling.synthetic import golden, process, reading


def quiet() -> list[ProcessSamples]:
    return [process(seed) for seed in range(5)]


def scattered() -> list[ProcessSamples]:
    return [process(seed, spread=0.12) for seed in range(5)]


def tailed() -> list[ProcessSamples]:
    times = np.full(200, 12e6)
    times[::40] = 30e6
    return [process(seed, device_ns=times) for seed in range(5)]


def drifting() -> list[ProcessSamples]:
    return [process(seed, device_ns=12e6 * np.linspace(1, 1.06, 200)) for seed in range(5)]


def disagreeing() -> list[ProcessSamples]:
    return [process(seed, milliseconds=12 * (1 + 0.02 * seed)) for seed in range(5)]


def warm() -> list[ProcessSamples]:
    return [process(0, readings=[reading("before"), reading("after", temperature_c=58.0)]), *quiet()[1:]]


def with_reading(**changes: object) -> list[ProcessSamples]:
    readings = [reading("before", **changes), reading("after", **changes)]
    return [process(seed, readings=readings) for seed in range(5)]


def newly(**changes: object) -> list[ProcessSamples]:
    return [*quiet()[:4], process(4, readings=[reading("before"), reading("after", **changes)])]


BROKEN: dict[str, Callable[[], list[ProcessSamples]]] = {
    "spread": scattered,
    "tail": tailed,
    "drift": drifting,
    "processes": disagreeing,
    "load": lambda: with_reading(load_1min=2.5),
    "governor": lambda: with_reading(governor="ondemand"),
    "throttled": lambda: newly(throttled_bits=0x40000),
    "temperature": warm,
    "samples": lambda: [process(seed, runs=12) for seed in range(5)],
    "few-processes": lambda: quiet()[:2],
    "swap": lambda: newly(swap_used_bytes=4_000_000),
    "golden": lambda: [*quiet()[:4], process(4, checks=[golden("before"), golden("after", mean=3e-6)])],
}


def test_a_quiet_machine_is_valid() -> None:
    assert judge(quiet(), cores=4, emulated=False) == []
    assert unobserved(quiet()) == []


def test_every_rule_has_its_sample() -> None:
    assert {*BROKEN, "emulated"} == set(THRESHOLDS)


@pytest.mark.parametrize("name", BROKEN)
def test_each_flag_alone(name: str) -> None:
    flags = judge(BROKEN[name](), cores=4, emulated=False)
    assert [flag.name for flag in flags] == [name]
    assert flags[0].observed
    assert flags[0].limit
    assert flags[0].remedy


def test_an_emulated_device_is_never_valid() -> None:
    assert [flag.name for flag in judge(quiet(), cores=4, emulated=True)] == ["emulated"]


def test_a_failed_golden_check_is_said() -> None:
    processes = [*quiet()[:4], process(4, checks=[golden("before"), golden("after", ok=False)])]
    (flag,) = judge(processes, cores=4, emulated=False)
    assert flag.name == "golden"
    assert "after" in flag.observed


@pytest.mark.parametrize(("bits", "word"), [(0x1, "under-voltage"), (0x2, "capped"), (0x4, "throttled"), (0x8, "soft")])
def test_throttling_now_is_named(bits: int, word: str) -> None:
    (flag,) = judge(with_reading(throttled_bits=bits), cores=4, emulated=False)
    assert word in flag.observed


def test_throttling_from_before_is_no_reason() -> None:
    assert judge(with_reading(throttled_bits=0x50000), cores=4, emulated=False) == []


def test_what_cannot_be_read_is_said() -> None:
    dark = reading("before", governor=None, temperature_c=None, throttled_bits=None)
    blind = [process(seed, readings=[dark]) for seed in range(5)]
    assert judge(blind, cores=4, emulated=False) == []
    (note,) = unobserved(blind)
    for word in ("clock governor", "temperature", "throttling"):
        assert word in note
    assert "load" not in note
