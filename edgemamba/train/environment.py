"""Where a run took place: what changes its numbers and its speed, nothing that names a person or machine."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from edgemamba.ssm.backends import backend
from edgemamba.versions import package_version

_PACKAGES = ("torch", "numpy", "pillow", "safetensors", "triton")
_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUBLAS_WORKSPACE_CONFIG",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
)


def environment(device: str) -> dict[str, Any]:
    """Hardware, threads, versions and variables, as JSON."""
    found: dict[str, Any] = {
        "device": device,
        "scan": backend(device),
        "threads": torch.get_num_threads(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := package_version(name)) is not None},
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
        found["tf32"] = {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "cudnn": torch.backends.cudnn.allow_tf32,
        }
    return found


def peak_memory_bytes(device: str) -> int:
    """Largest resident memory of this process, or on CUDA the largest sum of live tensors, so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    # Arm kernels name the board ("Model: Raspberry Pi 5"), x86 ones the processor, beside a model number.
    named = facts.get("model name") or facts.get("Model") or facts.get("Hardware")
    return named or platform.processor() or platform.machine()
