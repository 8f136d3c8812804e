"""``python -m edgemamba.bench.gpu --out FILE``: training speed on one CUDA device, augmentation included.

Each contestant trains on random slices that lie on the device, as a run does: the whole step is one CUDA graph. Speed
is images over the wall time of 200 replays; arithmetic and memory traffic a second say how far that is from what the
device can do.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgemamba import __version__
from edgemamba.bench import entry
from edgemamba.console import Console
from edgemamba.files import read_json, write_json
from edgemamba.models import build_segmentation, count
from edgemamba.registry import model_info
from edgemamba.train.environment import environment
from edgemamba.train.learner import Learner
from edgemamba.train.recipes import resolve
from edgemamba.train.segmentation import SegmentationTask
from edgemamba.train.step import TrainStep
from edgemamba.versions import commit

SIZE = (256, 256)
SLICES = 2048
REPLAYS = 200
# model, bfloat16, torch.compile, goal in images a second on an H100
CONTESTANTS: tuple[tuple[str, bool, bool, float | None], ...] = (
    ("ul-vm-unet", False, False, None),
    ("ul-vm-unet", False, True, 6000.0),
    ("ul-vm-unet", True, True, 6000.0),
    ("edge-unet", False, False, None),
    ("edge-unet", False, True, None),
    ("unet", True, False, None),
    ("unet", True, True, 2500.0),
)


def measure(model: str, batch: int, *, amp: bool, fused: bool, profile: bool) -> dict[str, Any]:
    """Speed of one network's training step.

    Args:
        model: registry name.
        batch: slices a step.
        amp: bfloat16 forward pass.
        fused: torch.compile.
        profile: list the kernels that take most of the time.
    """
    torch.manual_seed(0)
    torch._dynamo.reset()
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    network = build_segmentation(model).cuda()
    recipe = resolve("default", model_info(model), batch=batch, steps=10_000)
    learner = Learner(network, recipe, amp=amp)
    step = TrainStep(learner, SegmentationTask(), (_slices(),), batch=batch, steps=2 * REPLAYS, amp=amp, compile=fused)
    step.capture(Console(quiet=False))
    setup = time.perf_counter() - started
    step.begin(0)
    _replay(step, batch, 20)
    torch.cuda.synchronize()
    started = time.perf_counter()
    _replay(step, batch, REPLAYS)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / REPLAYS
    cost = count(build_segmentation(model), SIZE)
    found: dict[str, Any] = {
        "model": model,
        "batch": batch,
        "bfloat16": amp,
        "compile": fused,
        "graph": step.graph is not None,
        "step_ms": 1e3 * seconds,
        "images_per_s": batch / seconds,
        "setup_s": setup,
        "peak_mem_bytes": torch.cuda.max_memory_allocated(),
        "tflop_per_s": 6e-12 * cost.macs_conv_matmul * batch / seconds,
        "activation_gb_per_s": 1e-9 * 3 * _activation_bytes(model, amp=amp) * batch / seconds,
    }
    if profile:
        found["kernels"] = _kernels(step, batch)
    return found


def _slices() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    packed = torch.randint(0, 256, (SLICES, 4, *SIZE), generator=generator, dtype=torch.uint8)
    packed[:, 3] = (packed[:, 3] > 250) * 255
    return packed.cuda()


def _replay(step: TrainStep, batch: int, times: int) -> None:
    indices = torch.arange(batch, device="cuda")
    for i in range(times):
        step.run((indices + i * batch) % SLICES, 1e-3, 0.001)


def _activation_bytes(model: str, *, amp: bool) -> int:
    """Bytes of all layers' outputs for one image: in training each is at least written, read, and has a gradient."""
    network = build_segmentation(model)
    total = 0

    def add(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel() * (2 if amp else 4)

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(add)
    with torch.no_grad():
        network(torch.zeros(1, 3, *SIZE))
    return total


def _kernels(step: TrainStep, batch: int, shown: int = 15) -> dict[str, Any]:
    """GPU time by kernel, milliseconds a step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    with profiler(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        _replay(step, batch, 5)
        torch.cuda.synchronize()
    events: list[Any] = [e for e in seen.key_averages() if str(e.device_type).endswith("CUDA")]
    events.sort(key=lambda event: -event.self_device_time_total)
    return {
        "total_ms": sum(event.self_device_time_total for event in events) / 5e3,
        "launches": round(sum(event.count for event in events) / 5),
        "longest": [
            {"ms": round(event.self_device_time_total / 5e3, 3), "launches": event.count // 5, "name": event.key[:120]}
            for event in events[:shown]
        ],
    }


def placed(document: dict[str, Any], out: Path, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The results at ``out``, ``found`` put in its place; of another version or device, none of them."""
    earlier: list[dict[str, Any]] = []
    if out.is_file():
        there = read_json(out)
        if all(there.get(key) == document[key] for key in ("commit", "environment")):
            earlier = there["results"]
    order = [contestant[:3] for contestant in CONTESTANTS]
    results = {(one["model"], one["bfloat16"], one["compile"]): one for one in [*earlier, found]}
    return [results[key] for key in order if key in results]


def main() -> None:
    """Measure every contestant, or those of one model beside what the record has, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("profiles/reports/gpu.json"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--profile", action="store_true", help="list the longest kernels")
    parser.add_argument("--only", help="one model; the others stay as the record has them")
    arguments = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    document: dict[str, Any] = {
        "schema": "edgemamba.gpu/1",
        "edgemamba": __version__,
        "commit": commit(),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": "python -m edgemamba.bench.gpu",
        "environment": environment("cuda"),
    }
    for model, amp, fused, goal in CONTESTANTS:
        if arguments.only not in (None, model):
            continue
        found = measure(model, arguments.batch, amp=amp, fused=fused, profile=arguments.profile)
        document["results"] = placed(document, arguments.out, {**found, "goal_images_per_s": goal})
        print(json.dumps({key: found[key] for key in ("model", "compile", "images_per_s", "step_ms")}), file=sys.stderr)
        # After each, since a later one may fail.
        write_json(arguments.out, document)


if __name__ == "__main__":
    entry.run(main)
