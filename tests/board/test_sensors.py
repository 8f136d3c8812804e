"""Sensors, on files and outputs as the boards' documentation and kernels give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgemamba.board import sensors, summary


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/meminfo": "MemTotal:    7802172 kB\nMemAvailable: 5000000 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n",
    "proc/loadavg": "0.25 0.50 0.75 1/300 4242\n",
    "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd42\nprocessor\t: 1\nCPU part\t: 0xd42\n",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone8/type": "tj-thermal\n",
    "sys/class/thermal/thermal_zone8/temp": "51500\n",
    "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in1_input": "5056\n",
    "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input": "960\n",
    "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
    "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in7_input": "3\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "sys/class/devfreq/bwmgr/cur_freq": "1\n",
    "sys/devices/platform/bus@0/17000000.gpu/load": "123\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1728000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1728000\n",
}


def test_jetson(tmp_path: Path) -> None:
    root = tree(tmp_path, JETSON)
    facts = sensors.facts(root)
    assert facts["board"] == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert facts["l4t"] == "36.4.3"
    assert facts["cpu"] == "Cortex-A78AE"
    assert facts["memory_bytes"] == 7802172 * 1024
    found = sensors.read(root)
    assert found["temperature_c"] == {"cpu-thermal": 48.312, "tj-thermal": 51.5}
    # Volts times amperes: 5.056 V * 0.96 A. The rail without a current and the sum channel are left out.
    assert found["power_mw"] == {"VDD_IN": pytest.approx(4853.76)}
    assert found["gpu"] == {
        "17000000.gpu": {"cur_hz": 306000000, "max_hz": 1020000000},
        "load_permille": 123,
    }
    assert found["cpu"] == {"policy0": {"governor": "schedutil", "khz": 1728000, "max_khz": 1728000}}
    assert found["loadavg"] == [0.25, 0.5, 0.75]
    assert found["swap_used_bytes"] == 6 * 1024
    assert found["available_bytes"] == 5000000 * 1024


def test_nothing_is_there(tmp_path: Path) -> None:
    assert sensors.read(tmp_path) == {}
    assert "board" not in sensors.facts(tmp_path)


def test_unreadable_values_are_left_out(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {"sys/class/thermal/thermal_zone0/temp": "hot\n", "sys/class/thermal/thermal_zone1/temp": "41000\n"},
    )
    assert sensors.read(root) == {"temperature_c": {"thermal_zone1": 41.0}}


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_raspberry_pi_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(
        tmp_path,
        "vcgencmd",
        'case "$1" in get_throttled) echo "throttled=0x50005";; measure_temp) echo "temp=48.3\'C";; esac',
    )
    program(tmp_path, "nvpmodel", 'echo "NV Power Mode: MAXN_SUPER"; echo 2')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = sensors.read()
    # 0x50005: under-voltage and throttled, now and since boot.
    assert found["throttled"] == {"bits": "0x50005", "now": 5, "since_boot": 5}
    assert found["soc_temperature_c"] == 48.3
    assert found["nvpmodel"] == "NV Power Mode: MAXN_SUPER 2"


def test_programs_that_fail_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "vcgencmd", "exit 1")
    program(tmp_path, "nvpmodel", "exit 3")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = sensors.read()
    assert not {"throttled", "soc_temperature_c", "nvpmodel"} & set(found)


QUIET: dict[str, Any] = {
    "loadavg": [0.1, 0.1, 0.1],
    "temperature_c": {"cpu": 50.0},
    "throttled": {"bits": "0x0", "now": 0, "since_boot": 0},
    "cpu": {"policy0": {"governor": "performance"}},
}


def test_a_quiet_board_is_not_doubted() -> None:
    assert summary.doubts(QUIET, QUIET, 4) == []
    assert summary.doubts({}, {}, 4) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"loadavg": [2.5, 0.0, 0.0]}, {}, "other work"),
        ({}, {"temperature_c": {"cpu": 61.0}}, "cpu rose by 11 C"),
        ({}, {"throttled": {"bits": "0x20000", "now": 0, "since_boot": 2}}, "throttled"),
        ({}, {"throttled": {"bits": "0x1", "now": 1, "since_boot": 0}}, "throttled"),
        ({"cpu": {"policy0": {"governor": "ondemand"}}}, {}, "the governor is ondemand"),
        ({"swap_used_bytes": 1}, {}, "swap"),
    ],
)
def test_doubts(before: dict[str, Any], after: dict[str, Any], words: str) -> None:
    found = summary.doubts({**QUIET, **before}, {**QUIET, **after}, 4)
    assert len(found) == 1
    assert words in found[0]


def test_throttling_before_the_run_does_not_count_against_it() -> None:
    old = {**QUIET, "throttled": {"bits": "0x50000", "now": 0, "since_boot": 5}}
    assert summary.doubts(old, old, 4) == []
