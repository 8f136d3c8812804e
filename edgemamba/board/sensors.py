"""What the board says about itself: memory, clocks, temperatures, throttling, power. Everything is optional.

Copied into every Bundle; standard library only, Python 3.8. Reads /proc, /sys and, where installed,
``vcgencmd`` and ``nvpmodel -q``; changes nothing. Paths are taken below ``root``, so that a recorded tree can
be read too.
"""

from __future__ import annotations

import os
import pathlib
import platform
import re
import shutil
import subprocess
from typing import Any

ROOT = pathlib.Path("/")
# Names for CPU parts that /proc/cpuinfo of Arm kernels gives as numbers only.
_ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd42": "Cortex-A78AE",
    "0xd84": "Neoverse-V3",
    "0xd83": "Neoverse-V3AE",
}
_GPU_CLOCKS = re.compile(r"gpu|ga10b|17000000|gpc")


def facts(root: pathlib.Path = ROOT) -> dict[str, Any]:
    """What stays the same while the board runs; no host or user name."""
    found = {
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "cpu": _cpu_name(root),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "memory_bytes": _meminfo(root).get("MemTotal"),
        "board": _text(root / "proc/device-tree/model"),
        "l4t": _l4t(root),
    }
    return {key: value for key, value in found.items() if value is not None}


def read(root: pathlib.Path = ROOT) -> dict[str, Any]:
    """What changes: load, clocks, temperatures, throttling, power. Keys without a source are left out."""
    memory = _meminfo(root)
    found: dict[str, Any] = {
        "loadavg": _loadavg(root),
        "available_bytes": memory.get("MemAvailable"),
        "swap_used_bytes": _difference(memory.get("SwapTotal"), memory.get("SwapFree")),
        "cpu": _cpu_clocks(root),
        "temperature_c": _temperatures(root),
        "gpu": _gpu(root),
        "power_mw": _ina3221(root),
    }
    if root == ROOT:
        found.update(_vcgencmd())
        found["nvpmodel"] = _command("nvpmodel", "-q")
    return {key: value for key, value in found.items() if value not in (None, {}, [])}


def memory(root: pathlib.Path = ROOT) -> dict[str, int]:
    """Resident bytes of this process now and at its peak since the start or the last reset."""
    status = _kilobytes(root / "proc/self/status")
    found = {"rss_bytes": status["VmRSS"]}
    found["peak_rss_bytes"] = status["VmHWM"] if "VmHWM" in status else _getrusage_peak()
    rollup = _kilobytes(root / "proc/self/smaps_rollup")
    if "Pss" in rollup:
        found["pss_bytes"] = rollup["Pss"]
        found["private_bytes"] = rollup.get("Private_Clean", 0) + rollup.get("Private_Dirty", 0)
    # Where CPU and GPU share the memory, what CUDA takes shows here only.
    available = _meminfo(root).get("MemAvailable")
    return found if available is None else {**found, "available_bytes": available}


def reset_peak() -> bool:
    """Set the peak of resident memory to what is resident now; False where the kernel forbids it."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def process_age_ns() -> int:
    """Nanoseconds since the kernel started this process, to a clock tick (mostly 10 ms)."""
    stat = pathlib.Path("/proc/self/stat").read_text()
    ticks = int(stat.rpartition(")")[2].split()[19])
    started = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return _boottime_ns() - started


def _boottime_ns() -> int:
    import time

    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _getrusage_peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _text(path: pathlib.Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace").strip("\0 \n") or None
    except OSError:
        return None


def _number(path: pathlib.Path) -> int | None:
    text = _text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def _difference(total: int | None, rest: int | None) -> int | None:
    return None if total is None or rest is None else total - rest


def _kilobytes(path: pathlib.Path) -> dict[str, int]:
    """``Name:  123 kB`` lines as bytes."""
    found = {}
    for line in (_text(path) or "").splitlines():
        match = re.match(r"(\w+):\s+(\d+) kB", line)
        if match:
            found[match.group(1)] = int(match.group(2)) * 1024
    return found


def _meminfo(root: pathlib.Path) -> dict[str, int]:
    return _kilobytes(root / "proc/meminfo")


def _loadavg(root: pathlib.Path) -> list[float] | None:
    text = _text(root / "proc/loadavg")
    return [float(one) for one in text.split()[:3]] if text else None


def _cpu_name(root: pathlib.Path) -> str | None:
    text = _text(root / "proc/cpuinfo") or ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    if match:
        return match.group(1)
    parts = sorted(set(re.findall(r"^CPU part\s*:\s*(\S+)$", text, re.M)))
    return ", ".join(_ARM_PARTS.get(part, part) for part in parts) or None


def _l4t(root: pathlib.Path) -> str | None:
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release") or "")
    return f"{match.group(1)}.{match.group(2)}" if match else None


def _cpu_clocks(root: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Per cpufreq policy: governor, kHz now, least and greatest kHz allowed, greatest kHz of the hardware."""
    names = {
        "governor": "scaling_governor",
        "khz": "scaling_cur_freq",
        "min_khz": "scaling_min_freq",
        "max_khz": "scaling_max_freq",
        "hardware_max_khz": "cpuinfo_max_freq",
    }
    found = {}
    for policy in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*")):
        values: dict[str, Any] = {}
        for key, name in names.items():
            value = _text(policy / name) if key == "governor" else _number(policy / name)
            if value is not None:
                values[key] = value
        found[policy.name] = values
    return found


def _temperatures(root: pathlib.Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        milli = _number(zone / "temp")
        if milli is not None:
            name = _text(zone / "type") or zone.name
            found[name if name not in found else f"{name} ({zone.name})"] = milli / 1000.0
    return found


def _gpu(root: pathlib.Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in sorted((root / "sys/class/devfreq").glob("*")):
        if _GPU_CLOCKS.search(entry.name):
            clocks = {key: _number(entry / f"{key}_freq") for key in ("cur", "min", "max")}
            found[entry.name] = {f"{key}_hz": value for key, value in clocks.items() if value is not None}
    for pattern in ("sys/devices/platform/*.gpu/load", "sys/devices/platform/bus@0/*.gpu/load"):
        for entry in sorted(root.glob(pattern)):
            load = _number(entry)
            if load is not None:
                found["load_permille"] = load
    return found


def _ina3221(root: pathlib.Path) -> dict[str, float]:
    """Milliwatts of every labelled rail; channels above 3 are sums of shunt voltages."""
    found = {}
    for monitor in sorted((root / "sys/bus/i2c/drivers").glob("ina3221*/*/hwmon/hwmon*")):
        for channel in (1, 2, 3):
            label = _text(monitor / f"in{channel}_label")
            millivolt = _number(monitor / f"in{channel}_input")
            milliampere = _number(monitor / f"curr{channel}_input")
            if label and millivolt is not None and milliampere is not None:
                found[label] = millivolt * milliampere / 1000.0
    return found


def _vcgencmd() -> dict[str, Any]:
    found: dict[str, Any] = {}
    throttled = _command("vcgencmd", "get_throttled")
    match = re.search(r"throttled=(0x[0-9a-fA-F]+)", throttled or "")
    if match:
        bits = int(match.group(1), 16)
        found["throttled"] = {"bits": match.group(1), "now": bits & 0xF, "since_boot": bits >> 16 & 0xF}
    match = re.search(r"temp=([\d.]+)", _command("vcgencmd", "measure_temp") or "")
    if match:
        found["soc_temperature_c"] = float(match.group(1))
    return found


def _command(*arguments: str) -> str | None:
    program = shutil.which(arguments[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments[1:]], capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return " ".join(done.stdout.split()) if done.returncode == 0 else None
