"""Trained weights with the record of the run that made them: what is evaluated, exported and measured against.

A source is a RUN folder (``run.json`` and ``weights/``), the folder of an import (``import.json`` and ``weights/``) or
the name of packaged weights (``export/weights/NAME/{model.safetensors,run.json,MODEL_CARD.md}``).
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemamba.errors import InputError, UsageError, did_you_mean, require
from edgemamba.files import sha256_file, sha256_json
from edgemamba.presets import data_root
from edgemamba.records import DataRef, ImportRecord, RunRecord, load_record
from edgemamba.registry import ModelInfo, model_info

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from edgemamba.models import Network

    Floats = npt.NDArray[np.float32]
    Predictor = Callable[[Floats], Floats]


RECORD = "run.json"
# What of a run's environment goes into documents that leave the machine.
_HARDWARE = ("device", "gpu", "cpu", "scan", "amp", "compile", "packages", "world_size", "backend")
IMPORT_RECORD = "import.json"
IMPORTED = "weights/imported.safetensors"


class Source(abc.ABC):
    """A network with its weights: what every stage of an export takes.

    Attributes:
        name: how a person calls it.
        info: of the network; ``info.name`` is the model's name.
        weights_sha256: of the file of weights.
        size: input height and width, pixels.
        channels: of the input.
        images: folder of a user's own images for a network whose data is not known.
    """

    name: str
    info: ModelInfo
    weights_sha256: str
    size: tuple[int, int]
    channels: int
    images: Path | None

    @property
    def model(self) -> str:
        """Name of the network."""
        return self.info.name

    @property
    def data(self) -> DataRef | None:
        """The data and split it was trained on; None where that is not known."""
        return None

    @property
    def metrics(self) -> dict[str, Any]:
        """What evaluation found."""
        return {}

    @property
    def labels(self) -> list[str]:
        """Names of a classifier's classes, in their order; empty where they are not known."""
        return []

    @property
    def fingerprint(self) -> str:
        """What the stages' cache knows the network with its weights by."""
        return self.weights_sha256

    @abc.abstractmethod
    def document(self) -> dict[str, Any]:
        """Provenance for the manifest: no path, no host."""

    @abc.abstractmethod
    def build(self) -> nn.Module:
        """The network with its weights: float32, evaluation mode, on the CPU; gives logits.

        Raises:
            InputError: the file is not safetensors, or not of this model.
        """

    def reference(self) -> Predictor:
        """Images (n, C, h, w) float32 in [0, 1] to what the exported network must give, by fp32 PyTorch.

        Segmentation (n, h, w), classification (n, K), else the network's own output of each image, (n, ...).
        """
        from edgemamba.models.predictor import torch_predictor

        return torch_predictor(self.build(), task=self.info.task)


@dataclasses.dataclass(frozen=True)
class TrainedSource(Source):
    """Trained weights with the record of their run.

    Attributes:
        weights: safetensors file.
        run: the record of the training run.
        folder: holds run.json.
    """

    name: str
    info: ModelInfo
    weights: Path
    weights_sha256: str
    size: tuple[int, int]
    run: RunRecord
    folder: Path
    channels: int = 3
    images: Path | None = None

    @property
    def data(self) -> DataRef:
        """The data and split it was trained on."""
        return self.run.data

    @property
    def metrics(self) -> dict[str, Any]:
        """What evaluation has added to the run's record."""
        return self.run.metrics

    @property
    def labels(self) -> list[str]:
        """Names of a classifier's classes, in their order."""
        return self.run.labels

    def document(self) -> dict[str, Any]:
        """Name, hash of the weights, and what the run record says, without paths."""
        kept = ("edgemamba", "commit", "recipe", "init", "epochs", "epochs_done", "batch", "seed", "started")
        best = {"best_epoch", "best_val_dice_pooled", "best_val_top1"}
        run = self.run.model_dump(mode="json", include={*kept, "train_seconds", *best})
        environment = self.run.environment
        run["environment"] = {key: environment[key] for key in _HARDWARE if key in environment}
        if environment.get("refit"):
            run["refit"] = True
        if "teachers" in environment:
            told = [{key: one[key] for key in ("model", "weights_sha256")} for one in environment["teachers"]]
            run["teachers"] = told
        return {"name": self.name, "weights_sha256": self.weights_sha256, "run": run}

    def build(self) -> Network:
        """The network with its weights: float32, evaluation mode, on the CPU; gives logits.

        Raises:
            InputError: the file is not safetensors, or not of this model.
        """
        require("torch", "train")
        from edgemamba.models.weights import build_trained

        return build_trained(self.model, self.weights, len(self.labels) or None)


@dataclasses.dataclass(frozen=True)
class ModuleSource(Source):
    """Another project's network: one image-like input, one output of any static shape, no data that is known.

    Attributes:
        channels: C of its input 1xCxHxW.
        factory: makes the network with its weights.
        images: a user's own images, or .npy files of float32 (C, H, W), that verify and calibrate; None takes
            generated pictures to verify, and cannot calibrate.
        provenance: where it is from, for the manifest: no path, no host.
    """

    name: str
    info: ModelInfo
    weights_sha256: str
    size: tuple[int, int]
    channels: int
    factory: Callable[[], nn.Module]
    images: Path | None
    provenance: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Weights and code: the same weights do something else in another version of the file."""
        return sha256_json([self.weights_sha256, self.provenance])

    def document(self) -> dict[str, Any]:
        """Name, hash of the weights, and the provenance."""
        return {"name": self.name, "weights_sha256": self.weights_sha256, **self.provenance}

    def build(self) -> nn.Module:
        """The network with its weights: float32, evaluation mode, on the CPU."""
        return self.factory().cpu().float().eval()

    def reference(self) -> Predictor:
        """Images (n, C, h, w) to the outputs, stacked; the network sees one image at a time."""
        import numpy as np

        predict = super().reference()
        return lambda images: np.stack([predict(images[index : index + 1]) for index in range(len(images))])


@dataclasses.dataclass(frozen=True)
class ImportedSource(Source):
    """Weights that were trained and published elsewhere, as ``edgemamba import-weights`` keeps them.

    Attributes:
        weights: safetensors file.
        record: where they are from.
        folder: holds import.json.
    """

    name: str
    info: ModelInfo
    weights: Path
    weights_sha256: str
    size: tuple[int, int]
    record: ImportRecord
    folder: Path
    channels: int = 3
    images: Path | None = None

    def document(self) -> dict[str, Any]:
        """Name, hash of the weights, and what the import's record says, without paths."""
        kept = {"edgemamba", "commit", "created", "channel_order", "file", "file_sha256", "changes"}
        told = self.record.model_dump(mode="json", include=kept)
        return {"name": self.name, "weights_sha256": self.weights_sha256, "import": told}

    def build(self) -> Network:
        """The network with its weights: float32, evaluation mode, on the CPU; gives logits.

        Raises:
            InputError: the file is not safetensors, or not of this model.
        """
        require("torch", "train")
        from edgemamba.models.weights import build_trained

        return build_trained(self.model, self.weights)


def packaged_weights() -> dict[str, Path]:
    """Folder of every set of weights that ships with edgemamba, by name."""
    root = data_root() / "export" / "weights"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/model.safetensors"))}


def weights_file(name: str) -> Path:
    """A safetensors file by its path, or by the name of packaged weights.

    Raises:
        UsageError: neither.
    """
    packaged = packaged_weights()
    if Path(name).is_file():
        return Path(name)
    if name in packaged:
        return packaged[name] / "model.safetensors"
    raise UsageError(f"{name} is neither a file nor packaged weights", hint=did_you_mean(name, packaged))


@dataclasses.dataclass(frozen=True)
class WeightsInfo:
    """One row of a listing of packaged weights."""

    name: str
    model: str
    summary: str


def weights_table() -> list[WeightsInfo]:
    """What ships with edgemamba, for listings."""
    rows = []
    for name, folder in packaged_weights().items():
        run = load_record(folder / RECORD, RunRecord)
        height, width = run.size
        summary = f"{height}x{width}, {run.data.name}, {run.data.split} split, {run.epochs_done} epochs"
        rows.append(WeightsInfo(name, run.model, summary))
    return rows


def newest_run(runs: Path = Path("runs"), records: tuple[str, ...] = (RECORD,)) -> Path:
    """The folder below ``runs`` whose record, named by one of ``records``, was written last.

    Raises:
        InputError: there is none.
    """
    found = [path for name in records for path in runs.glob(f"*/{name}")]
    if not found:
        raise InputError(f"there is no run in {runs}/", hint="edgemamba train")
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent


def open_source(name: str | Path | None = None, *, runs: Path = Path("runs")) -> TrainedSource | ImportedSource:
    """Find trained weights.

    Args:
        name: a RUN folder, the folder of an import, or the name of packaged weights; None takes the newest run or
            import below ``runs``.
        runs: where training puts its runs.

    Raises:
        UsageError: neither a folder nor a known name.
        InputError: there is no run, the folder is not one, has no weights yet, or its weights were changed.
    """
    folder = newest_run(runs, (RECORD, IMPORT_RECORD)) if name is None else Path(name)
    packaged = packaged_weights()
    if name is not None and str(name) in packaged and not (folder / RECORD).exists():
        return _open(str(name), packaged[str(name)], "model.safetensors")
    if folder.is_dir():
        if (folder / IMPORT_RECORD).exists():
            return _open_import(folder)
        if not (folder / RECORD).exists():
            raise InputError(f"{folder} is not a run: it has no run.json", hint="give the folder edgemamba train wrote")
        record = load_record(folder / RECORD, RunRecord)
        which = record.settings.get("checkpoint", "best")
        return _open(folder.resolve().name, folder, f"weights/{which}.safetensors")
    raise UsageError(f"{name} is neither a run folder nor packaged weights", hint=did_you_mean(str(name), packaged))


def with_images(source: TrainedSource | ImportedSource, images: Path | None) -> TrainedSource | ImportedSource:
    """The source with a user's own images, which verify and calibrate an import.

    Raises:
        UsageError: the source's own data is known.
    """
    if images is None:
        return source
    if not isinstance(source, ImportedSource):
        raise UsageError(f"--images is for networks whose data is not known; {source.name} has its own", hint="drop it")
    return dataclasses.replace(source, images=images)


def _open(name: str, folder: Path, weights: str) -> TrainedSource:
    record = load_record(folder / RECORD, RunRecord)
    path = folder / weights
    if not path.is_file():
        raise InputError(f"{folder} has no {weights} yet", hint="wait for the first epoch, or train again")
    digest = _digest(path, record.weights.get(weights) if record.state == "finished" else None)
    # A classifier of other classes has another head than the published network.
    info = dataclasses.replace(model_info(record.model), parameters=record.parameters)
    info.check_size(*record.size)
    return TrainedSource(name, info, path, digest, record.size, record, folder)


def _open_import(folder: Path) -> ImportedSource:
    record = load_record(folder / IMPORT_RECORD, ImportRecord)
    path = folder / IMPORTED
    if not path.is_file():
        raise InputError(f"{folder} has no {IMPORTED}", hint="import the weights again")
    digest = _digest(path, record.weights.get(IMPORTED))
    info = model_info(record.model)
    info.check_size(*record.size)
    return ImportedSource(folder.resolve().name, info, path, digest, record.size, record, folder)


def _digest(path: Path, expected: str | None) -> str:
    """SHA-256 of a file of weights, which must be ``expected`` unless that is None."""
    digest = sha256_file(path)
    if expected is not None and expected != digest:
        raise InputError(
            f"{path} is not the file the run wrote: SHA-256 {digest[:12]}, recorded {expected[:12]}",
            hint="train or import it again, or restore the file",
        )
    return digest
