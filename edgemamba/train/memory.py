"""Out of memory, on the GPU or the host: which batch would have fitted.

torch raises OutOfMemoryError on CUDA and a plain RuntimeError on the host; NumPy and Python raise MemoryError.
"""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Iterator

import torch

from edgemamba.errors import InputError
from edgemamba.train.distributed import World
from edgemamba.train.step import TrainStep

_HOST = ("not enough memory", "can't allocate memory", "cannot allocate memory")
# Part of the free memory that is not counted on: the allocator's fragments, cuDNN's larger workspaces.
_SPARE = 0.1
_GIB = 2**30


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory is short."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _HOST)


@contextlib.contextmanager
def sufficient_memory(step: TrainStep) -> Iterator[None]:
    """Around a training step.

    Raises:
        InputError: memory ran out; the hint is the batch that fits, measured on CUDA with smaller ones, else half.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        # What the failed step had computed hangs on the frames of its traceback.
        traceback.clear_frames(error.__traceback__)
        step.graph = None
        reason = str(error).splitlines()[0] if str(error) else "memory error"
    else:
        return
    shares = step.learner.world.size
    batch, device = len(step.indices) * shares, step.packed[0].device
    height, width = step.packed[0].shape[-2:]
    fitting = _measured(step) if device.type == "cuda" else None
    where = "the GPU" if device.type == "cuda" else "this machine"
    if batch == shares or fitting == 0:
        raise InputError(
            f"{where} has too little memory for a batch of {batch} at {height}x{width} ({reason})",
            hint="a smaller --size or a smaller network",
        )
    mine = max(1, batch // shares // 2) if fitting is None else min(fitting, batch // shares - 1)
    advice = mine * shares
    how = "half of it" if fitting is None else "measured with smaller batches"
    raise InputError(
        f"{where} has too little memory for {batch} {step.task.unit} of {height}x{width} a step ({reason})",
        hint=f"--batch {advice} ({how}), or a smaller --size",
    )


@contextlib.contextmanager
def enough_for_the_rest(device: str, size: tuple[int, int]) -> Iterator[None]:
    """Around all that is no training step: reading the data, validation, writing.

    Raises:
        InputError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        where = "the GPU or this machine" if device == "cuda" else "this machine"
        reason = str(error).splitlines()[0] if str(error) else "memory error"
        raise InputError(
            f"{where} has too little memory for the data and network at {size[0]}x{size[1]} ({reason})",
            hint="the batch is not what is too large: a smaller --size, or less data",
        ) from None


def fitting_batch(small: int, small_peak: float, large: int, large_peak: float, free: float) -> int:
    """Slices a step that ``free`` bytes hold, from the peaks at two batches: memory is linear in the batch.

    Above eight it is a multiple of eight, as kernels like it.
    """
    each = max((large_peak - small_peak) / (large - small), 1.0)
    fixed = max(0.0, small_peak - each * small)
    most = math.floor((free * (1 - _SPARE) - fixed) / each)
    return max(0, most // 8 * 8 if most > 8 else most)


def _measured(step: TrainStep) -> int | None:
    """The batch that fits, from steps of an eighth and a quarter; None where none of them can be measured."""
    # The other processes take no part in the trial.
    step.learner.world, step.learner.exchange = World(), None
    small = max(1, len(step.indices) // 8)
    while True:
        torch.cuda.empty_cache()
        try:
            peaks = [_peak(step, batch) for batch in (small, 2 * small)]
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)
            if small == 1:
                return None
            small //= 2
            continue
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return fitting_batch(small, peaks[0], 2 * small, peaks[1], free)


def _peak(step: TrainStep, batch: int) -> float:
    """Bytes that one step of ``batch`` slices needs beside what lies there already."""
    trial = TrainStep(step.learner, step.task, step.packed, batch=batch, steps=1, amp=step.amp, teachers=step.teachers)
    trial.begin(0)
    indices = torch.arange(batch, device=step.packed[0].device) % len(step.packed[0])
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    trial.run(indices, 0.0, 0.0)
    torch.cuda.synchronize()
    step.learner.optimizer.zero_grad(set_to_none=True)
    return float(torch.cuda.max_memory_allocated() - before)
