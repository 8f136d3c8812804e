"""``python -m edgemamba.bench --out DIR``: run every section and write bench.json."""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from edgemamba import __version__
from edgemamba.bench import entry, loop, sections
from edgemamba.files import write_json
from edgemamba.train.environment import environment

_ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "LD_PRELOAD")
_PROTOCOL = (
    "one process, one thread, contestants interleaved round by round in rotating order, CPU time of the process, "
    "ratio of medians with a paired bootstrap 95 % interval over rounds; results compared before timing"
)
_HEAVY = ("torch", "numpy", "onnx", "onnxruntime")


def start_up(rounds: int) -> dict[str, Any]:
    """Wall seconds of ``edgemamba --help`` in fresh processes, and which heavy modules it imports."""
    command = [sys.executable, "-m", "edgemamba", "--help"]
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    probe = (
        "import sys; sys.argv=['edgemamba', '--help']\nfrom edgemamba.cli.main import main\n"
        f"try: main()\nexcept SystemExit: print([m for m in {_HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    middle = sorted(seconds)[len(seconds) // 2]
    return {
        "median_s": round(middle, 3),
        "bar_s": 0.5,
        "met": middle < 0.5,
        "heavy_modules": found.stderr.strip(),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("profiles/reports"), help="folder of bench.json")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of inference; training takes a sixth")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds: int = arguments.rounds
    document: dict[str, Any] = {
        "schema": "edgemamba.bench/1",
        "edgemamba": __version__,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": "make bench",
        "protocol": _PROTOCOL,
        "environment": environment("cpu"),
        "allocator": {name: os.environ[name] for name in _ALLOCATOR if name in os.environ} or "glibc default",
        "load_average": os.getloadavg()[0],
        "results": {},
    }
    parts = {
        "UL-VM-UNet, 256x256, batch 1": lambda: sections.inference(rounds),
        "Mamba layer, U-Mamba bottleneck": lambda: sections.wide(512, 256, 1, max(5, rounds // 2)),
        "Mamba layer, Vim on CIFAR": lambda: sections.wide(192, 65, 2, rounds),
        "training step, batch 8, 256x256": lambda: sections.training(max(5, rounds // 6)),
        "training from decoded slices, batch 8, 256x256": lambda: loop.from_slices(max(5, rounds // 6)),
        "edgemamba --help": lambda: start_up(10),
    }
    for title, part in parts.items():
        print(title, file=sys.stderr)
        found = part()
        document["results"][title] = found
        for row in found.get("ratios", []):
            bar = "" if row["bar"] is None else f"   bar {row['bar']}: {'met' if row['met'] else 'MISSED'}"
            print(f"  {row['slower']} / {row['faster']}: {row['ratio']} ({row['low']} to {row['high']}){bar}")
        print(f"  {found.get('facts', found)}")
    document["load_average_end"] = os.getloadavg()[0]
    write_json(arguments.out / "bench.json", document)
    print(f"written to {arguments.out / 'bench.json'}")


if __name__ == "__main__":
    entry.run(main)
