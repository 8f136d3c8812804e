"""One training run between opening its data and its last epoch."""

from __future__ import annotations

import contextlib
import copy
import datetime
import math
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from edgemamba.console import Bar, Console
from edgemamba.data import Sample, data_ref, load_arrays, open_dataset, split_dataset
from edgemamba.errors import InputError
from edgemamba.models.encoder_weights import load_encoder
from edgemamba.models.weights import load_weights
from edgemamba.records import DataRef, RunRecord, load_record
from edgemamba.registry import model_info
from edgemamba.sources import RECORD
from edgemamba.ssm.backends import backend, lacks
from edgemamba.train.config import TrainConfig, differences
from edgemamba.train.distill import open_teachers
from edgemamba.train.distributed import World
from edgemamba.train.environment import peak_memory_bytes
from edgemamba.train.failure import FailedBatch, save_failed, training_batch, validation_batch
from edgemamba.train.history import Row, best
from edgemamba.train.learner import Learner
from edgemamba.train.losses import ALONE
from edgemamba.train.memory import sufficient_memory
from edgemamba.train.order import epoch_order, epoch_seed, share_of, steps_per_epoch
from edgemamba.train.recipes import ema_weight, lr_at
from edgemamba.train.run_folder import ENCODER_FROM, FAILED, SAMPLES, STARTED_FROM, RunFolder, begin
from edgemamba.train.step import TrainStep
from edgemamba.train.task import Validation
from edgemamba.train.tasks import TASKS
from edgemamba.train.validation import validate

_CUDA_CHECK_STEPS = 50
_CURVES_EVERY_S = 10.0
# Of the time of a run on CUDA, so that a large network's state does not keep the GPU waiting.
_WRITING_SHARE = 0.05


class Run:
    """Data, network and folder of one run, as new or as resumed.

    Args:
        config: of the run.
        console: progress.
        world: the processes that train together; each has a ``Run``, and the first writes the files.

    Raises:
        InputError: the data is unusable, or the settings of a resumed run differ.
    """

    def __init__(self, config: TrainConfig, console: Console, world: World = ALONE) -> None:
        self.config = config
        self.world = world
        self.console = console
        self.info = model_info(config.model)
        self.device = torch.device(config.device)
        where = f" from {config.data_root}" if config.data_root else " (built in, seeded)"
        console.line(f"data: {config.data}{where}")
        dataset = open_dataset(config.data, config.data_root, **config.data_options)
        split = split_dataset(dataset, config.split)
        self.task = TASKS[self.info.task](dataset.labels)
        data = data_ref(dataset, split)
        earlier = load_record(config.out / RECORD, RunRecord) if config.resume else None
        if earlier is not None:
            odd = differences(config, earlier)
            if earlier.data.fingerprint != data.fingerprint:
                odd.append("data: the files have changed")
            if odd:
                raise InputError(
                    f"the run in {config.out} has other settings: {'; '.join(odd)}",
                    hint="resume with the same settings, or train into another --out",
                )
        parts = (tuple(sorted((*split.train, *split.val))) if config.refit else split.train, split.val)
        if config.refit:
            console.line("the validation part is trained on too: its scores say nothing about new images")
        train, val = (load_arrays(dataset, part, config.size, console) for part in parts)
        self.train_samples, self.val_samples = train.samples, val.samples
        self.favoured = self.task.favoured(train, config)
        samples = len(self.favoured)
        self.batch = min(config.batch, samples) // world.size * world.size
        if not self.batch:
            raise InputError(
                f"the training part has {samples} {self.task.unit} for {world.size} devices", hint="add data"
            )
        if self.batch < config.batch:
            console.warn(f"the training part has {samples} {self.task.unit}, fewer than a batch of {config.batch}")
        self.steps = steps_per_epoch(samples, self.batch)
        self.recipe = self.task.recipe(config, self.info, batch=self.batch, steps=self.steps * config.epochs)
        self.train_set, self.val_set = (
            tuple(tensor.to(self.device) for tensor in self.task.pack(part)) for part in (train, val)
        )
        self._build(data)
        self.rows: list[Row] = []
        self.curves_drawn = time.monotonic()
        self.writes_every_epoch = config.device == "cpu"
        self.written = 0
        self.due = 0.0
        self._unwritten: dict[str, Tensor] | None = None
        if earlier is None:
            with begin(config.out) if world.main else contextlib.nullcontext():
                self._save([])
        else:
            self._save(self._resume(earlier))

    def _build(self, data: DataRef) -> None:
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = self.task.build(config)
            if config.weights is not None:
                load_weights(config.weights, model)
            if config.encoder_weights is not None:
                load_encoder(config.encoder_weights, model)
            model = model.to(self.device)
            self.learner = Learner(model, self.recipe, amp=config.amp, world=self.world)
        self.best_model = copy.deepcopy(self.learner.average)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        self.folder = RunFolder(config, self.recipe, self.task, parameters, data, _now())
        self.folder.environment["backend"] = self.world.backend
        teachers = None
        if config.teachers:
            teachers, self.folder.environment["teachers"] = open_teachers(
                config.teachers, self.folder.data, self.recipe.distillation, self.device
            )
        self.step = TrainStep(
            self.learner,
            self.task,
            self.train_set,
            batch=self.batch // self.world.size,
            steps=self.steps,
            amp=config.amp,
            teachers=teachers,
            compile=config.compile,
        )
        if config.device == "cuda":
            if backend(config.device) == "torch":
                lacking = lacks("triton", config.device)
                self.console.warn(f"no Triton scan without {lacking}: it runs as plain tensor code, more slowly")
            with sufficient_memory(self.step):
                self.step.capture(self.console)

    def _resume(self, earlier: RunRecord) -> list[Row]:
        tensors, rows = self.folder.load_state()
        top = {name.removeprefix("best/"): tensors.pop(name) for name in [*tensors] if name.startswith("best/")}
        self.learner.load(tensors)
        self.best_model.load_state_dict(top)
        for origin in {STARTED_FROM, ENCODER_FROM} & earlier.environment.keys():
            self.folder.environment[origin] = earlier.environment[origin]
        now = self.folder.environment
        changed = [
            k for k in ("device", "devices", "threads", "cpu", "packages") if earlier.environment.get(k) != now[k]
        ]
        if changed:
            self.console.warn(f"not bit-identical to an uninterrupted run: other {', '.join(changed)} than before")
        self.console.line(f"resuming {self.config.out} after epoch {len(rows)} of {self.config.epochs}")
        return rows

    def epochs(self) -> None:
        """Run every epoch that is left, then draw the pictures.

        Raises:
            InputError: the loss is no longer a number.
        """
        config = self.config
        left = config.epochs - len(self.rows)
        if left:
            self.console.line(
                f"{config.model}: {self.folder.parameters:,} parameters, {len(self.train_set[0])} training and "
                f"{len(self.val_set[0])} validation {self.task.unit} at {config.size[0]}x{config.size[1]}, "
                f"{self.steps} steps of {self.batch} an epoch, {config.device}"
                + (f", {self.world.size} processes over {self.world.backend}" if self.world.size > 1 else "")
            )
        with self.console.bar("training", total=max(1, left * self.steps)) as bar:
            for epoch in range(len(self.rows), config.epochs):
                row = self._epoch(epoch, bar)
                rows = [*self.rows, row]
                if best(rows, self.task.headline) is row:
                    self.best_model.load_state_dict(self.learner.average.state_dict())
                self._keep(rows)
                self._tell(row)
        if self.world.main:
            self.folder.save_curves(self.rows)
        self._save_samples()

    def _epoch(self, epoch: int, bar: Bar) -> Row:
        begun = time.perf_counter()
        lr = self._train(epoch, bar)
        trained = time.perf_counter() - begun
        seen = self._validate(self.learner.average)
        if not math.isfinite(seen.loss):
            size = self.task.validation_batch[self.config.device]
            batch = validation_batch(self.step, self.val_set, size)
            self._diverged(f"validation loss is {seen.loss}", epoch, self.steps, batch, self.val_samples, 0)
        return Row(
            epoch=epoch + 1,
            step=(epoch + 1) * self.steps,
            lr=lr,
            train_loss=float(self.step.losses_so_far(self.steps).double().mean()),
            val_loss=seen.loss,
            scores={self.task.trained: self.step.score(), **seen.scores},
            seconds=time.perf_counter() - begun,
            images_per_s=self.steps * self.batch / trained,
            peak_mem_bytes=peak_memory_bytes(self.config.device),
        )

    def _train(self, epoch: int, bar: Bar) -> float:
        """All steps of one epoch; the last learning rate."""
        config = self.config
        order = epoch_order(
            self.favoured, self.recipe, batch=self.batch, seed=config.seed, epoch=epoch, epochs=config.epochs
        )
        self.order = torch.from_numpy(share_of(order, self.world.rank, self.world.size)).to(self.device)
        self.step.begin(epoch_seed(config.seed, epoch, self.world.rank))
        # Looking at a loss waits for the GPU, so there it is looked at in groups.
        window = 1 if config.device == "cpu" else _CUDA_CHECK_STEPS
        seen = 0
        for i in range(self.steps):
            number = epoch * self.steps + i
            lr = lr_at(self.recipe, number, self.steps * config.epochs)
            with sufficient_memory(self.step):
                self.step.run(self.order[i], lr, ema_weight(self.recipe, number))
            if i + 1 - seen == window or i + 1 == self.steps:
                loss = self._check_losses(epoch, seen, i + 1)
                seen = i + 1
                bar.advance(1, f"epoch {epoch + 1}/{config.epochs}  loss {loss:.4f}")
            else:
                bar.advance(1)
        return lr

    def _check_losses(self, epoch: int, begin: int, end: int) -> float:
        """Mean loss of steps ``begin`` to ``end``; raises if a loss or gradient is not finite, or a signal came."""
        if self.step.stopping():
            raise KeyboardInterrupt
        losses, norms = self.step.losses_so_far(end)[begin:], self.step.norms_so_far(end)[begin:]
        wrong = (~torch.isfinite(losses + norms)).nonzero()
        if len(wrong):
            first = int(wrong[0])
            loss, norm = float(losses[first]), float(norms[first])
            what = f"norm of the gradient is {norm}" if math.isfinite(loss) else f"loss is {loss}"
            number = begin + first + 1
            seed = epoch_seed(self.config.seed, epoch, self.world.rank)
            batch = training_batch(self.step, seed, self.order[:number])
            culprit = self.world.first(not batch.finite, self.device)
            self._diverged(what, epoch, number, batch, self.train_samples, culprit)
        return float(losses.mean())

    def _diverged(
        self, what: str, epoch: int, step: int, batch: FailedBatch, samples: Sequence[Sample], rank: int
    ) -> NoReturn:
        """End the training of all processes; the process ``rank`` keeps its batch."""
        kept = f"the weights of epoch {len(self.rows)} are kept" if self.rows else "no epoch is kept"
        lr = lr_at(self.recipe, epoch * self.steps + step - 1, self.steps * self.config.epochs)
        about = {"what": what, "epoch": epoch + 1, "step": step, "lr": lr, "model": self.config.model, "process": rank}
        folder = self.config.out / FAILED
        if self.world.rank == rank:
            save_failed(folder, batch, [sample.id for sample in samples], about)
        advice = "without --amp, or " if self.config.amp else ""
        error = InputError(
            f"the {what} in epoch {epoch + 1}, step {step} (learning rate {lr:.2g}); {kept}; its batch is in {folder}",
            hint=f"look at {folder / 'sheet.png'}; try {advice}a smaller --batch (so a lower rate), another --seed",
        )
        self.world.silence(error)

    def _validate(self, model: torch.nn.Module) -> Validation:
        batch = self.task.validation_batch[self.config.device]
        settings: dict[str, Any] = {"batch": batch, "layout": self.learner.layout, "world": self.world}
        return validate(self.task, model, self.val_set, self.recipe, **settings)

    def _tell(self, row: Row) -> None:
        trained, found = (
            "-" if score is None else f"{score:.4f}"
            for score in (row.scores[self.task.trained], row.scores[self.task.headline])
        )
        mark = "  best" if best(self.rows, self.task.headline) is row else ""
        self.console.line(
            f"epoch {row.epoch}/{self.config.epochs}  "
            f"loss {row.train_loss:.4f} train {row.val_loss:.4f} val  {self.task.score} {trained} train {found} val  "
            f"lr {row.lr:.1e}  {row.seconds:.1f} s{mark}"
        )

    def _keep(self, rows: list[Row]) -> None:
        """Write the epoch just done, or hold on to it where writing would keep a GPU waiting too often."""
        if len(rows) == self.config.epochs or self.writes_every_epoch or time.monotonic() >= self.due:
            self._save(rows)
        elif self.world.main:
            self._unwritten = self.learner.clone()
        self.rows = rows

    def write_kept(self) -> None:
        """Write the last whole epoch if that has not been done.

        Raises:
            InputError: it cannot be written; ``rows`` are those that were.
        """
        if self._unwritten is None:
            return
        self.learner.load(self._unwritten)
        try:
            self._save(self.rows)
        except InputError:
            self.rows = self.rows[: self.written]
            raise

    def _save(self, rows: list[Row]) -> None:
        """Make the newest of ``rows`` the epoch a resumed run starts from; write what follows from it."""
        if not self.world.main:
            self.rows = rows
            return
        begun = time.monotonic()
        tensors = self.learner.tensors()
        tensors |= {f"best/{name}": tensor for name, tensor in self.best_model.state_dict().items()}
        self.folder.save_state(tensors, rows)
        self.rows = rows
        self.written, self._unwritten = len(rows), None
        self.folder.save_results(self.learner.average, self.best_model, self.rows)
        self.folder.save_record("running", self.rows)
        if time.monotonic() - self.curves_drawn > _CURVES_EVERY_S:
            self.folder.save_curves(self.rows)
            self.curves_drawn = time.monotonic()
        now = time.monotonic()
        self.due = now + (now - begun) / _WRITING_SHARE

    def _save_samples(self) -> None:
        model = self.best_model if self.recipe.checkpoint == "best" else self.learner.average
        seen = self._validate(model)
        if self.world.main:
            self.task.save_samples(self.config.out / SAMPLES, model, self.val_set, self.val_samples, seen)
            if self.folder.events is not None:
                self.folder.events.show(self.rows, self.config.out / SAMPLES)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
