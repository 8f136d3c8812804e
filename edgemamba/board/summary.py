"""What a person reads after ``agent.py``: latency percentiles, memory, sensors and doubts.

Copied into every Bundle; standard library only, Python 3.8.
"""

from __future__ import annotations

import math
from typing import Any

# Samples from which a percentile says something about the board and not about chance: MLPerf's early-stopping
# bound at 99 % confidence.
PERCENTILES = ((50, 11), (90, 64), (95, 130), (99, 662))


def percentile(values: list[int], share: int) -> int | None:
    """Nearest-rank percentile; None where there are too few samples for it."""
    if len(values) < dict(PERCENTILES)[share]:
        return None
    return sorted(values)[math.ceil(share / 100.0 * len(values)) - 1]


def lines(events: list[dict[str, Any]]) -> list[str]:
    """The whole summary of one complete run."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        kinds.setdefault(event["event"], []).append(event)
    hello, cold, golden = kinds["hello"][0], kinds["cold"][0], kinds["golden"][-1]
    machine = hello["machine"]
    before, after = kinds["sensors"]
    samples = [pair for event in kinds["sample"] if event["phase"] == "run" for pair in event["samples"]]
    device, end_to_end = [pair[0] for pair in samples], [pair[1] for pair in samples]
    board = machine.get("board") or machine.get("cpu") or machine["architecture"]
    found = [
        f"Bundle   {hello['bundle']}",
        f"Board    {board}, {machine['cores']} cores, Python {hello['python']}, numpy {hello['numpy']}",
        f"Runtime  {hello['runtime']} {cold['runtime_version']}, threads: {hello['threads']}",
        f"         {cold['note']}",
        f"Golden   ok before and after: mean |difference| {golden['mean_abs_diff']:.2g}, "
        f"{golden['agreement_of']} {golden['agreement']:.6f}",
        f"Cold     first result {cold['process_to_first_result_ns'] / 1e6:.0f} ms after the process started "
        f"(imports {cold['import_ns'] / 1e6:.0f}, load {cold['load_ns'] / 1e6:.0f}, "
        f"first run {cold['first_run_ns'] / 1e6:.1f})",
        f"Latency  device_run  {_latency(device)}",
        f"         end_to_end  {_latency(end_to_end)}",
        _memory(kinds["memory"]),
        *_sensors(before, after),
        *[f"Doubt    {doubt}" for doubt in doubts(before, after, machine["cores"])],
    ]
    return [line for line in found if line.strip()]


def _latency(values: list[int]) -> str:
    parts = [f"n {len(values)}", f"min {min(values) / 1e6:.3f}"]
    for share, needed in PERCENTILES:
        found = percentile(values, share)
        parts.append(f"p{share} {found / 1e6:.3f}" if found is not None else f"p{share} needs n >= {needed}")
    return "  ".join([*parts, f"max {max(values) / 1e6:.3f} ms"])


def _memory(events: list[dict[str, Any]]) -> str:
    names = [event["at"] for event in events]
    loaded = events[names.index("imports") + 1 :]
    idle = events[names.index("imports")]["rss_bytes"]
    peak = max(event["peak_rss_bytes"] for event in events)
    growth = max(event["peak_rss_bytes"] for event in loaded) - idle
    return f"Memory   {peak / 1e6:.1f} MB at peak; the model adds {growth / 1e6:.1f} MB to the idle runtime"


def _sensors(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found = []
    if "loadavg" in before:
        found.append(f"Load     {before['loadavg'][0]} at the start")
    for name, start in before.get("temperature_c", {}).items():
        found.append(f"Heat     {name} {start:.1f} -> {after['temperature_c'].get(name, start):.1f} C")
    if "throttled" in after:
        found.append(f"Throttle {before['throttled']['bits']} -> {after['throttled']['bits']}")
    if "nvpmodel" in before:
        found.append(f"Mode     {before['nvpmodel']}")
    for rail, power in after.get("power_mw", {}).items():
        found.append(f"Rail     {rail} {before.get('power_mw', {}).get(rail, 0.0):.0f} -> {power:.0f} mW")
    for policy, values in before.get("cpu", {}).items():
        if "governor" in values:
            found.append(f"Governor {policy}: {values['governor']}")
    return found


def doubts(before: dict[str, Any], after: dict[str, Any], cores: int) -> list[str]:
    """What makes the measurement doubtful."""
    found = []
    if before.get("loadavg", [0.0])[0] > 0.5 * cores:
        found.append("other work was running at the start")
    for name, start in before.get("temperature_c", {}).items():
        rise = after["temperature_c"].get(name, start) - start
        if rise > 10.0:
            found.append(f"{name} rose by {rise:.0f} C")
    if "throttled" in after:
        old, new = before["throttled"], after["throttled"]
        if old["now"] or new["now"] or new["since_boot"] & ~old["since_boot"]:
            found.append("throttled or under-voltage")
    governors = {values.get("governor", "performance") for values in before.get("cpu", {}).values()}
    if governors - {"performance"}:
        found.append(f"the governor is {', '.join(sorted(governors))}, not performance")
    if before.get("swap_used_bytes"):
        found.append("swap is in use")
    return found
