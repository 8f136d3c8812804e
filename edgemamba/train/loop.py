"""``train``: from a configuration to a run folder.

What is exact: on a CPU the same seed, settings, thread count, machine and versions give the same weights bit
by bit, interrupted and resumed or not. On CUDA the draws, the augmentation's random numbers and the learning
rates are the same, but some gradients (bilinear resampling, index sums) are added up in no fixed order, so
two runs agree only statistically.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import torch

from edgemamba.console import Console
from edgemamba.errors import InputError
from edgemamba.records import RunRecord, load_record
from edgemamba.sources import RECORD
from edgemamba.train.config import TrainConfig, differences
from edgemamba.train.distributed import Muted, World, joined, lost
from edgemamba.train.memory import enough_for_the_rest
from edgemamba.train.run import Run
from edgemamba.train.run_folder import refuse_taken


def train(config: TrainConfig, console: Console) -> RunRecord:
    """Train a network, or go on with a run, and leave a folder whose files are complete at every moment.

    Args:
        config: every choice, see ``TrainConfig.resolve`` and ``resume_config``.
        console: progress.

    Raises:
        InputError: the folder is taken, the data is unusable, the settings of a resumed run differ, the GPU's
            memory is too small, or the loss is no longer a number (the last good checkpoint stays).
        DeviceError: of several processes, another one has ended.
        KeyboardInterrupt: on SIGINT or SIGTERM, with the command that goes on; at most the epoch under way is
            lost. (A process that is killed outright loses on CUDA also what was not written yet: a few epochs, so
            that writing takes a twentieth of the time at most.)
    """
    with (
        _threads(config.threads),
        joined(config.devices, config.device) as world,
        _signals(world),
        enough_for_the_rest(config.device, config.size),
        _fast_gpu(config),
    ):
        config, earlier = world.agree(lambda: (config, _before(config)))
        if earlier is not None:
            console.line(f"{config.out} is finished: {earlier.epochs_done} epochs")
            return earlier
        run = Run(config, console if world.main else Muted(), world)
        try:
            run.epochs()
        except KeyboardInterrupt:
            _interrupt(run)
        except RuntimeError as error:
            if not lost(error):
                raise
            if world.stop:
                _interrupt(run)
            _leave(run)
            raise
        except InputError:
            _leave(run)
            raise
        # NCCL does not let go of its connections while a graph holds calls of it.
        run.step.graph = None
        return world.agree(lambda: run.folder.save_record("finished", run.rows))


def _before(config: TrainConfig) -> RunRecord | None:
    """Look at the folder before anything is done; the record of a run that is finished already."""
    refuse_taken(config.out, resume=config.resume, force=config.force)
    if config.resume:
        earlier = load_record(config.out / RECORD, RunRecord)
        if earlier.state == "finished" and not differences(config, earlier):
            return earlier
    return None


def _interrupt(run: Run) -> NoReturn:
    _leave(run)
    if not run.world.main:
        raise SystemExit(130)
    done = f"{len(run.rows)} of {run.config.epochs} epochs are kept"
    raise KeyboardInterrupt(
        f"interrupted; {done}; go on with: edgemamba train --resume --out {shlex.quote(str(run.config.out))}"
    ) from None


def _leave(run: Run) -> None:
    """Mark the run as one that can be resumed, unless that is what just failed."""
    if not run.world.main:
        return
    with contextlib.suppress(InputError):
        run.write_kept()
    with contextlib.suppress(InputError):
        run.folder.save_record("interrupted", run.rows)
        run.folder.save_curves(run.rows)


@contextlib.contextmanager
def _fast_gpu(config: TrainConfig) -> Iterator[None]:
    """On CUDA: products in TF32, and cuDNN measures which convolution is fastest for the one shape there is."""
    if config.device != "cuda":
        yield
        return
    precision, benchmark = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark = benchmark


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _signals(world: World) -> Iterator[None]:
    """SIGTERM acts as Ctrl-C does (only the main thread may say so).

    Several processes stop together, after a step that all of them take; the second signal does not wait for that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: Any) -> None:
        if world.size == 1 or world.stop:
            raise KeyboardInterrupt
        world.stop = True

    numbers = (signal.SIGTERM,) if world.size == 1 else (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
