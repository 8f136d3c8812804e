"""The files of one run: who may write where, and what is kept of an epoch.

RUN/run.json, metrics.csv, curves.png, samples/, weights/{best,last}.safetensors, state/last.safetensors, and failed/
where the loss was no longer a number. The state is the one thing a resumed run reads; all else follows from it and is
written anew.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from edgemamba import __version__
from edgemamba.errors import InputError
from edgemamba.files import sha256_file, write_text
from edgemamba.models.weights import save_weights
from edgemamba.records import DataRef, RunRecord, save_record
from edgemamba.sources import RECORD
from edgemamba.train import plots
from edgemamba.train.checkpoint import load_state, save_state
from edgemamba.train.config import TrainConfig
from edgemamba.train.environment import environment
from edgemamba.train.history import Row, best, to_csv
from edgemamba.train.recipes import Recipe
from edgemamba.train.task import TrainTask
from edgemamba.train.tensorboard import EventLog
from edgemamba.versions import commit

State = Literal["running", "interrupted", "finished"]

STATE = "state/last.safetensors"
BEST = "weights/best.safetensors"
LAST = "weights/last.safetensors"
METRICS = "metrics.csv"
CURVES = "curves.png"
SAMPLES = "samples"
# Hashes of the files that a run started from: they are not opened again when it is resumed.
STARTED_FROM = "started_from_sha256"
ENCODER_FROM = "encoder_from_sha256"
FAILED = "failed"
EVENTS = "tensorboard"
_PRODUCTS = (RECORD, METRICS, CURVES, SAMPLES, FAILED, EVENTS, "weights", "state")


def refuse_taken(out: Path, *, resume: bool, force: bool) -> None:
    """Refuse to train where it would overwrite something, or to resume where there is no run.

    Raises:
        InputError: there is something else at ``out``, or nothing to resume.
    """
    if resume:
        if not (out / RECORD).is_file():
            raise InputError(f"{out} has no {RECORD}: there is nothing to resume", hint="drop --resume")
        return
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", hint="choose another --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / RECORD).is_file():
        raise InputError(f"{out} is not empty and is no earlier run", hint="choose another --out")
    if not force:
        raise InputError(
            f"{out} holds a run", hint="--resume to go on with it, --force to replace it, or another --out"
        )


@contextlib.contextmanager
def begin(out: Path) -> Iterator[None]:
    """The first writing of a new run: an earlier run's files go before it, its own where it fails."""
    _clear(out)
    try:
        yield
    except BaseException:
        _clear(out)
        with contextlib.suppress(OSError):
            out.rmdir()
        raise


def _clear(out: Path) -> None:
    """Remove what a run wrote at ``out``, and nothing else."""
    for name in _PRODUCTS:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class RunFolder:
    """Writer of one run's files.

    Args:
        config: of the run.
        recipe: as resolved for it.
        task: what the network learns.
        parameters: of the network.
        data: what it trains on.
        started: UTC, ISO 8601.
    """

    def __init__(
        self, config: TrainConfig, recipe: Recipe, task: TrainTask, parameters: int, data: DataRef, started: str
    ) -> None:
        self.out = config.out
        self.config = config
        self.recipe = recipe
        self.task = task
        self.parameters = parameters
        self.data = data
        self.started = started
        self.commit = commit()
        self.environment: dict[str, Any] = {
            **environment(config.device),
            "amp": config.amp,
            "refit": config.refit,
            "compile": config.compile,
            "tensorboard": config.tensorboard,
            "devices": config.devices,
            "threads_asked": config.threads,
            "repeatable": "bit by bit" if config.device == "cpu" else "statistically",
        }
        self.events: EventLog | None = None
        for name, path in ((STARTED_FROM, config.weights), (ENCODER_FROM, config.encoder_weights)):
            if path is not None:
                self.environment[name] = sha256_file(path)

    def save_state(self, tensors: dict[str, Tensor], rows: list[Row]) -> None:
        """Make these tensors and rows what a resumed run starts from."""
        document = {
            "recipe": self.recipe.as_settings(),
            "rows": [vars(row) for row in rows],
            "started": self.started,
        }
        save_state(self.out / STATE, tensors, document)

    def load_state(self) -> tuple[dict[str, Tensor], list[Row]]:
        """What ``save_state`` wrote last.

        Raises:
            InputError: it is missing or damaged, or this version resolves the recipe otherwise.
        """
        tensors, document = load_state(self.out / STATE)
        mine = self.recipe.as_settings()
        odd = [key for key, value in mine.items() if document["recipe"].get(key) != value]
        if odd or mine.keys() != document["recipe"].keys():
            raise InputError(
                f"this version of edgemamba has another recipe than the run in {self.out}: {', '.join(odd)}",
                hint="resume with the version that began it, or train into another --out",
            )
        self.started = document["started"]
        return tensors, [Row(**row) for row in document["rows"]]

    def save_results(self, last: nn.Module, top: nn.Module, rows: list[Row]) -> None:
        """Weights and table of the epochs so far."""
        winner = best(rows, self.task.headline)
        if winner is not None:
            for name, model, epoch in ((LAST, last, len(rows)), (BEST, top, winner.epoch)):
                about = {
                    "edgemamba": __version__,
                    "model": self.config.model,
                    "recipe": self.recipe.name,
                    "epoch": str(epoch),
                }
                save_weights(self.out / name, model, about)
        write_text(self.out / METRICS, to_csv(rows))
        if self.config.tensorboard:
            self.events = self.events or EventLog(self.out / EVENTS, self.started)
            self.events.update(rows)

    def save_record(self, state: State, rows: list[Row]) -> RunRecord:
        """Write ``run.json`` as of now."""
        config, headline = self.config, self.task.headline
        winner = best(rows, headline)
        files = [name for name in (BEST, LAST) if (self.out / name).is_file()]
        record = RunRecord(
            edgemamba=__version__,
            commit=self.commit,
            state=state,
            model=config.model,
            parameters=self.parameters,
            size=config.size,
            init=config.init,
            recipe=config.recipe,
            settings=self.recipe.as_settings(),
            epochs=config.epochs,
            epochs_done=len(rows),
            batch=config.batch,
            seed=config.seed,
            data=self.data,
            environment=self.environment,
            started=self.started,
            train_seconds=sum(row.seconds for row in rows),
            best_epoch=None if winner is None else winner.epoch,
            labels=self.task.labels,
            weights={name: sha256_file(self.out / name) for name in files},
        )
        if winner is not None:
            record = record.model_copy(update={f"best_{headline}": winner.scores[headline]})
        save_record(self.out / RECORD, record)
        return record

    def save_curves(self, rows: list[Row]) -> None:
        """Draw ``curves.png``."""
        if rows:
            config = self.config
            title = f"{config.model} on {config.data}, {config.split} split, {config.recipe} recipe"
            plots.save_curves(self.out / CURVES, rows, self.task, title)
