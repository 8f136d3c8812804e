"""Where torch computes on this machine: the CPU, or a CUDA device. Readable without torch."""

from __future__ import annotations

from typing import Literal

from edgemamba.errors import Unsupported, UsageError, require

Device = Literal["cpu", "cuda"]


def resolve_device(name: str) -> Device:
    """``auto`` is CUDA where there is a CUDA device.

    Raises:
        UsageError: none of auto, cpu and cuda.
        Unsupported: cuda without a CUDA device.
    """
    require("torch", "train")
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device is {name!r}; expected auto, cpu or cuda")
    if name == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise Unsupported("torch sees no CUDA device", hint="--device cpu, or install a CUDA build of torch")
    return "cpu"
