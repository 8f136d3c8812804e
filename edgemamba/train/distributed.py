"""Training on several devices, one process each.

The batch is the whole batch: each process takes its share of every step's samples, in the order that one process would
see. Losses are pooled over all of it and gradients added up, so a step is the step that one process would take, up to
rounding. Two things differ: each process has random numbers of its own, and batch norm normalises by the process's own
share (its running statistics are averaged over the processes at every step).

All that a step exchanges beside the losses' sums lies in one flat buffer, one all-reduce: a compact network's
gradients are 200 kB, for which a latency counts and overlapping with the backward pass does not, and unlike torch's
DistributedDataParallel it needs no hooks, takes networks with heads beside ``forward``, and is captured with the step.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgemamba.accelerator import Device
from edgemamba.console import Console
from edgemamba.errors import DeviceError, EdgemambaError, UsageError
from edgemamba.train.launch import PEER_LOST, place

T = TypeVar("T")

_LOST = ("closed by peer", "reset by peer", "broken pipe", "connection refused", "connectionreset", "remote process")


@dataclasses.dataclass(eq=False)
class World:
    """The processes of a training; on its own there is one.

    Attributes:
        rank: of this process; 0 writes the files.
        size: processes.
        backend: gloo or nccl; None on its own.
        launched: by this package, which reports errors of all processes.
        stop: a signal asked this process to end.
    """

    rank: int = 0
    size: int = 1
    backend: str | None = None
    launched: bool = False
    stop: bool = False

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, mean: Tensor) -> Tensor:
        """This process's part of a mean over the batch, from its mean over its own samples."""
        return mean if self.size == 1 else mean / self.size

    def total(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Scalars added over all processes; their gradient goes to this process's parts alone.

        Whatever is computed of the totals is equal everywhere, and its gradients, added over the processes, are those
        of the whole batch.
        """
        return parts if self.size == 1 else self._total(parts)

    @torch.compiler.disable
    def _total(self, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        own = torch.stack(tuple(parts))
        others = self.add(own.detach().clone()) - own.detach()
        return tuple((own + others).unbind())

    def mean(self, mean: Tensor) -> Tensor:
        """``total`` of one mean over the process's own samples."""
        return self.total(self.share(mean))[0]

    def add(self, tensor: Tensor) -> Tensor:
        """Add ``tensor`` over all processes, in place; without gradient."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def first(self, flag: bool, device: torch.device) -> int:
        """The first process whose ``flag`` is set; 0 where none is."""
        flags = torch.zeros(self.size, device=device)
        flags[self.rank] = float(flag)
        return int(self.add(flags).argmax())

    def agree(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on the first process, or its error, on all of them.

        Raises:
            EdgemambaError: on the first process what ``make`` raises; the others end with its exit code.
        """
        if self.size == 1:
            return make()
        said: list[object] = [None, None]
        if self.main:
            try:
                said[0] = make()
            except EdgemambaError as error:
                said[1] = error
        dist.broadcast_object_list(said, src=0)
        if isinstance(said[1], EdgemambaError):
            self.silence(said[1])
        return said[0]  # type: ignore[return-value]

    def silence(self, error: EdgemambaError) -> NoReturn:
        """Raise an error that every process has: the first with its message, the others without."""
        if self.main:
            raise error
        raise SystemExit(error.exit_code)


class Exchange:
    """What the processes add up after a backward pass, as one all-reduce.

    Args:
        world: the processes.
        model: its batch norms' running statistics are averaged.
        parameters: their gradients are added.
    """

    def __init__(self, world: World, model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        self.world = world
        self.parameters = list(parameters)
        norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        self.statistics = [s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None]
        device = self.parameters[0].device
        self.stop = torch.zeros(1, device=device)
        self.stopping = torch.zeros(1, device=device)

    @torch.no_grad()
    def __call__(self) -> None:
        """Gradients to their sums, running statistics to their means; ``stopping`` is above 0 if any ``stop`` was."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        kept = [*gradients, *self.statistics, self.stopping]
        own = [*gradients, *(s / self.world.size for s in self.statistics), self.stop]
        flat = self.world.add(torch.cat([tensor.flatten() for tensor in own]))
        added = flat.split([tensor.numel() for tensor in kept])
        torch._foreach_copy_(kept, [part.view(tensor.shape) for part, tensor in zip(added, kept, strict=True)])


class Muted(Console):
    """Says nothing, not even warnings: the first process says them."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def warn(self, text: str) -> None:
        """Nothing."""


@contextlib.contextmanager
def joined(devices: int, device: Device) -> Iterator[World]:
    """The processes of this training, connected: gloo on CPUs, NCCL on CUDA.

    Raises:
        UsageError: ``devices`` are more than one and this process is on its own, or are not those that were started.
        DeviceError: another process has ended.
    """
    here = place()
    if here is None or here.size == 1:
        if devices > 1:
            raise UsageError(
                f"{devices} devices take {devices} processes, and this is one",
                hint=f"edgemamba train --devices {devices}, or torchrun --nproc-per-node {devices} -m edgemamba train",
            )
        yield World()
        return
    if here.size != devices:
        raise UsageError(f"{here.size} processes were started for {devices} devices", hint="leave --devices out")
    backend = "nccl" if device == "cuda" else "gloo"
    if device == "cuda":
        torch.cuda.set_device(here.local)
        dist.init_process_group(backend, device_id=torch.device("cuda", here.local))
    else:
        dist.init_process_group(backend)
    world = World(here.rank, here.size, backend, here.launched)
    try:
        yield world
    except RuntimeError as error:
        if not lost(error):
            raise
        if world.launched or not world.main:
            raise SystemExit(PEER_LOST) from None
        raise DeviceError(
            "the process of another device has ended", hint="its own message says why; then go on with --resume"
        ) from None
    dist.destroy_process_group()


def lost(error: BaseException) -> bool:
    """Whether a collective failed because another process is gone."""
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _LOST)
