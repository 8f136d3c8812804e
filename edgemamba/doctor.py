"""Checks of this machine: what edgemamba can do here, and the command that adds what is missing."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from edgemamba.versions import package_version

Status = Literal["ok", "warn", "FAIL", "n.a."]


@dataclasses.dataclass(frozen=True)
class Check:
    """One row: ``fix`` is the command or edit that mends it."""

    name: str
    status: Status
    observed: str
    fix: str = ""


_PACKAGES = (
    ("torch", "torch", "train", "train, evaluate, export"),
    ("onnx", "onnx", "onnx", "export"),
    ("onnxruntime", "onnxruntime", "onnx", "verify and profile ONNX"),
    ("nncf", "nncf", "quant", "int8 with NNCF"),
    ("ai_edge_litert", "ai-edge-litert", "tflite", "export, verify and profile TFLite"),
    ("ai_edge_quantizer", "ai-edge-quantizer", "tflite", "int8 TFLite"),
)


def run_checks() -> list[Check]:
    """Every check, in the order a user reads them."""
    checks: list[Check] = []
    for part in (_python, _packages, _accelerator, _scan, _runtimes, _tensorrt, _machine, _data):
        checks.extend(part())
    return checks


def _python() -> Iterator[Check]:
    good = sys.version_info >= (3, 10)
    yield Check(
        "Python",
        "ok" if good else "FAIL",
        platform.python_version(),
        "" if good else "install Python 3.10 or newer",
    )


def _packages() -> Iterator[Check]:
    for module, distribution, extra, use in _PACKAGES:
        version = package_version(distribution) if importlib.util.find_spec(module) else None
        if version:
            yield Check(distribution, "ok", version)
        else:
            yield Check(distribution, "warn", f"not installed: no {use}", f'pip install "edgemamba[{extra}]"')


def _accelerator() -> Iterator[Check]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        yield Check("CUDA", "ok", f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    else:
        yield Check("CUDA", "n.a.", f"no GPU for torch {torch.__version__}; training runs on the CPU")


def _scan() -> Iterator[Check]:
    """Every backend of the training scan that can run, the one that training takes first."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    from edgemamba.ssm.backends import BACKENDS, available, lacks, use_backend
    from edgemamba.ssm.parity import gradient_error, scan_error, scan_seconds

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        for place, name in enumerate(available(device)):
            with use_backend(name):
                error, gradient, seconds = scan_error(device), gradient_error(device), scan_seconds(device)
            good = max(error, gradient) <= 1e-5
            taken = "taken" if place == 0 else "not taken"
            errors = f"{error:.1e}, gradients {gradient:.1e} relative to float64 (bar 1e-5)"
            observed = f"{taken}; {errors}; {1e3 * seconds:.1f} ms"
            yield Check(f"scan on {device}: {name}", "ok" if good else "FAIL", observed)
        for name in BACKENDS:
            missing = lacks(name, device)
            if device == "cuda" and missing is not None:
                status: Status = "warn" if name == "triton" else "n.a."
                fix = f"many times faster than tensor operations with {missing}" if name == "triton" else ""
                yield Check(f"scan on {device}: {name}", status, f"lacks {missing}", fix)


def _probe(name: str, action: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", action())
    except Exception as error:  # a broken binary package can raise anything; the row says what
        return Check(name, "FAIL", f"{type(error).__name__}: {error}".splitlines()[0], "reinstall this package")


def _runtimes() -> Iterator[Check]:
    if importlib.util.find_spec("onnxruntime") is not None:

        def providers() -> str:
            import onnxruntime

            return ", ".join(onnxruntime.get_available_providers())

        yield _probe("ONNX Runtime providers", providers)
    if importlib.util.find_spec("ai_edge_litert") is not None:

        def interpreter() -> str:
            from ai_edge_litert.interpreter import Interpreter

            return f"{Interpreter.__name__} loads"

        yield _probe("LiteRT interpreter", interpreter)


def _tensorrt() -> Iterator[Check]:
    for module, meaning in (
        ("tensorrt", "engines can be built here"),
        ("tensorrt_rtx_bindings", "graphs can be parsed without a GPU"),
    ):
        if importlib.util.find_spec(module) is not None:
            yield Check(module, "ok", meaning)
            return
    yield Check("tensorrt", "n.a.", "not installed: engines are built on the Jetson itself")


def _machine() -> Iterator[Check]:
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    quiet = load <= 0.5 * cores
    fix = "" if quiet else "close other programs before measuring"
    yield Check("load", "ok" if quiet else "warn", f"{load:.1f} on {cores} cores", fix)
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor.exists():
        name = governor.read_text().strip()
        fast = name == "performance"
        fix = "" if fast else "sudo cpupower frequency-set -g performance (before measuring)"
        yield Check("CPU governor", "ok" if fast else "warn", name, fix)
    else:
        yield Check("CPU governor", "n.a.", "not exposed by this machine")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Check(
        "disk",
        "ok" if free > 2 else "warn",
        f"{free:.0f} GiB free here",
        "" if free > 2 else "free some space",
    )
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            pass
        yield Check("write permission", "ok", "this folder")
    except OSError as error:
        yield Check("write permission", "FAIL", str(error.strerror), "change to a folder of your own")


def _data() -> Iterator[Check]:
    root = os.environ.get("EDGEMAMBA_DATA")
    if not root:
        yield Check("data", "n.a.", "EDGEMAMBA_DATA is not set: training uses built-in phantoms")
        return
    from edgemamba.data import default_data, open_dataset
    from edgemamba.errors import EdgemambaError

    try:
        found = default_data()
        assert found is not None  # the variable is set
        dataset = open_dataset(found[0], found[1])
    except EdgemambaError as error:
        yield Check("data", "FAIL", error.message, error.hint)
        return
    patients = len({sample.patient for sample in dataset.samples})
    yield Check("data", "ok", f"{found[0]}: {len(dataset.samples)} images of {patients} patients")
