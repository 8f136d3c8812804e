"""The whole training step as one piece: draw, augment, forward, loss, backward, clip, optimize, average.

Every buffer is static. On CUDA the step is captured once as a CUDA graph and replayed: a compact network is a
few hundred tiny kernels, and launching them one by one would set the pace.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgemamba.console import Console
from edgemamba.models import RandomModule
from edgemamba.train.distill import Teachers
from edgemamba.train.learner import Learner
from edgemamba.train.task import Packed, TrainTask

_WARM_UP_STEPS = 3


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def autocast(amp: bool) -> contextlib.AbstractContextManager[Any]:
    """Around a forward pass: bfloat16 on CUDA, or nothing."""
    return torch.autocast("cuda", torch.bfloat16) if amp else contextlib.nullcontext()


class TrainStep:
    """One step of training on ``batch`` samples of a data set that lies on the device.

    Args:
        learner: what is trained.
        task: augmentation, loss and score.
        packed: the samples, on the device.
        batch: samples a step, of this process.
        steps: steps an epoch.
        amp: bfloat16 autocast around the forward pass.
        teachers: soften the target; None leaves the mask.
        compile: let torch.compile fuse the forward and backward pass, and the teachers' forward pass.
    """

    def __init__(
        self,
        learner: Learner,
        task: TrainTask,
        packed: Packed,
        *,
        batch: int,
        steps: int,
        amp: bool,
        teachers: Teachers | None = None,
        compile: bool = False,
    ) -> None:
        device = packed[0].device
        self.learner = learner
        self.task = task
        self.packed = packed
        self.amp = amp
        self.teachers = teachers
        fused = functools.partial(torch.compile, dynamic=False) if compile else _as_it_is
        self._judge = fused(self._losses)
        self._soften = None if teachers is None else fused(teachers.soften)
        self._new_generator()
        self.indices = torch.zeros(batch, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.losses = torch.zeros(steps, device=device)
        self.norms = torch.zeros(steps, device=device)
        self.counts = torch.zeros(task.counts, dtype=torch.int64, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def _new_generator(self) -> None:
        self.generator = torch.Generator(self.packed[0].device)
        self.prepare = self.task.prepare(self.learner.recipe, self.packed, self.generator)
        for part in self.learner.model.modules():
            if isinstance(part, RandomModule):
                part.generator = self.generator

    def draw(self) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and target of ``indices`` with the next random numbers."""
        images, target = self.prepare(tuple(part.index_select(0, self.indices) for part in self.packed))
        return images.contiguous(memory_format=self.learner.layout), target

    def _step(self) -> None:
        learner = self.learner
        images, target = self.draw()
        learned = target if self._soften is None else self._soften(images, target)
        learner.optimizer.zero_grad(set_to_none=True)
        total, loss, logits = self._judge(images, learned)
        total.backward()
        if learner.exchange is not None:
            learner.exchange()
        norm = learner.clip_gradients()
        learner.halt_unless_finite(total.detach() + norm)
        learner.optimizer.step()
        learner.update_average()
        self._note(loss.detach(), norm, logits.detach(), target)

    def _losses(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``TrainTask.losses``."""
        with autocast(self.amp):
            return self.task.losses(self.learner, images, target)

    @torch.no_grad()
    def _note(self, loss: Tensor, norm: Tensor, logits: Tensor, target: Tensor) -> None:
        self.counts += self.task.count(logits, target)
        self.losses.index_copy_(0, self.position, loss.view(1))
        self.norms.index_copy_(0, self.position, norm.view(1))
        self.position += 1

    def capture(self, console: Console) -> None:
        """Record the step as a CUDA graph; if that fails, say so once and go on step by step.

        What the rehearsal changes is put back; ``begin`` seeds the random numbers anyway.
        """
        before = self.learner.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_STEPS):
                self.begin(0)
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self.begin(0)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        try:
            # NCCL has threads of its own, whose calls must not break the capture.
            mode = "global" if self.learner.exchange is None else "thread_local"
            with torch.cuda.graph(graph, capture_error_mode=mode):
                self._step()
            self.graph = graph
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            torch.cuda.synchronize()
            # A generator whose capture broke off stays bound to it.
            self._new_generator()
            reason = str(error).splitlines()[0]
            console.warn(f"the step cannot be captured as a CUDA graph ({reason}); it runs kernel by kernel, slower")
        self.learner.load(before)

    def begin(self, seed: int) -> None:
        """Begin an epoch: clear what is counted, seed the augmentation."""
        self.generator.manual_seed(seed)
        self.position.zero_()
        self.losses.zero_()
        self.norms.zero_()
        self.counts.zero_()

    def run(self, indices: Tensor, lr: float, average_weight: float) -> None:
        """One step; on CUDA it is only queued.

        Args:
            indices: int64 (batch), on the device.
            lr: learning rate of this step.
            average_weight: share of the new weights in the average.
        """
        self.indices.copy_(indices)
        self.learner.lr.fill_(lr)
        self.learner.average_weight.fill_(average_weight)
        if self.learner.exchange is not None:
            self.learner.exchange.stop.fill_(float(self.learner.world.stop))
        if self.graph is not None:
            self.graph.replay()
        else:
            self._step()

    def losses_so_far(self, count: int) -> Tensor:
        """Loss of each of the first ``count`` steps of this epoch, on the CPU (waits for the device)."""
        return self.losses[:count].cpu()

    def norms_so_far(self, count: int) -> Tensor:
        """Norm of the whole gradient, before clipping, in each of the first ``count`` steps of this epoch."""
        return self.norms[:count].cpu()

    def score(self) -> float | None:
        """The task's score over this epoch's samples, of all processes; once an epoch."""
        return self.task.trained_score(self.learner.world.add(self.counts).tolist())

    def stopping(self) -> bool:
        """Whether a process was asked to end by the last step; the same on all of them."""
        exchange = self.learner.exchange
        return exchange is not None and float(exchange.stopping) > 0
