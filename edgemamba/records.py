"""Versioned documents that cross a process or a file: the run record, the Bundle's manifest.

Every record is strict (unknown keys are refused) and round-trips: ``load(dump(x)) == x``. Numbers carry their unit in
the key. No user name, host name or absolute path is recorded in anything that is shipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from edgemamba.errors import InputError
from edgemamba.files import read_json, write_json
from edgemamba.presets import Format, Precision


class Record(BaseModel):
    """Base of every record."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataRef(Record):
    """Which data, exactly: enough to open the same set and the same split again."""

    name: str = Field(description="key of the table of data sets")
    root: str | None = Field(default=None, description="local path; never shipped")
    split: str = Field(description="image, patient, official or fold:K")
    fingerprint: str = Field(description="SHA-256 over sorted sample ids and their content hashes")
    options: dict[str, Any] = Field(
        default_factory=dict, description="what open_dataset was given besides name and root"
    )
    counts: dict[str, int] = Field(description="samples in train, val and test")


class RunRecord(Record):
    """``RUN/run.json``: one training run."""

    schema_: Literal["edgemamba.run/1"] = Field(default="edgemamba.run/1", alias="schema")
    edgemamba: str
    commit: str | None = None
    state: Literal["running", "interrupted", "finished"]
    model: str
    parameters: int
    size: tuple[int, int] = Field(description="input height and width, pixels")
    init: Literal["mamba", "source"]
    recipe: str
    settings: dict[str, Any] = Field(description="the whole resolved recipe")
    epochs: int
    epochs_done: int
    batch: int
    seed: int
    data: DataRef
    environment: dict[str, Any] = Field(description="hardware, threads and versions that matter")
    started: str = Field(description="UTC, ISO 8601")
    train_seconds: float
    best_epoch: int | None = None
    best_val_dice_pooled: float | None = None
    best_val_top1: float | None = Field(default=None, description="of a classifier, 0 to 1")
    labels: list[str] = Field(default_factory=list, description="names of a classifier's classes, in their order")
    metrics: dict[str, Any] = Field(default_factory=dict, description="what evaluate has added")
    weights: dict[str, str] = Field(default_factory=dict, description="file below the run folder: SHA-256")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ImportRecord(Record):
    """``RUN/import.json``: a network trained elsewhere. How and on which data is not known, and is not made up."""

    schema_: Literal["edgemamba.import/1"] = Field(default="edgemamba.import/1", alias="schema")
    edgemamba: str
    commit: str | None = None
    created: str = Field(description="UTC, ISO 8601")
    model: str
    parameters: int
    size: tuple[int, int] = Field(description="input height and width of exports, pixels; chosen at the import")
    channel_order: Literal["RGB", "BGR"] = Field(
        description="that the network was trained on; BGR has been turned in the first convolution"
    )
    file: str = Field(description="name of the published file, without its folder")
    file_sha256: str
    changes: dict[str, Any] = Field(description="what was dropped or renamed on the way to the network's tensors")
    weights: dict[str, str] = Field(description="file below the folder: SHA-256")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FileEntry(Record):
    """One file of a Bundle; ``path`` is relative and POSIX."""

    path: str
    bytes: int
    sha256: str


class Tensor(Record):
    """One input or output of an artifact."""

    name: str
    shape: list[int]
    dtype: Literal["float32"]
    layout: str
    meaning: str


class Preprocess(Record):
    """How an image becomes the input tensor: bilinear resize to ``size``, multiply by ``scale``, NCHW.

    "grey" is its luminance; "none" takes no image file, only arrays.
    """

    channel_order: Literal["RGB", "grey", "none"] = "RGB"
    resize: Literal["bilinear"] = "bilinear"
    size: tuple[int, int]
    scale: float = 1.0 / 255.0


class Golden(Record):
    """Inputs and expected outputs that travel with the artifact (``golden.npz``)."""

    file: str
    images: int
    mean_tolerance: float = Field(description="largest allowed mean |difference| of the output")
    agreement: float = Field(
        description="least share of equal mask pixels or equal first classes, or least cosine",
        validation_alias=AliasChoices("agreement", "mask_agreement"),
    )


class StageRecord(Record):
    """One export stage as it ran."""

    name: str
    title: str
    seconds: float
    cached: bool
    facts: dict[str, Any]


class Manifest(Record):
    """``BUNDLE/manifest.json``."""

    schema_: Literal["edgemamba.bundle/1", "edgemamba.bundle/2"] = Field(default="edgemamba.bundle/2", alias="schema")
    edgemamba: str
    created: str
    name: str
    model: str
    parameters: int
    task: str
    target: str
    device: str
    format: Format
    precision: Precision
    runtime: str
    onnxruntime_level: Literal["extended", "all"] = Field(
        default="extended", description="graph optimisation level of ONNX Runtime that suits this graph"
    )
    artifact: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    preprocess: Preprocess
    labels: list[str] = Field(default_factory=list, description="names of a classifier's classes, in their order")
    threshold: float | None = Field(default=None, description="segmentation: probability from which a pixel is lesion")
    golden: Golden
    quantization: dict[str, Any] | None
    verification: dict[str, Any]
    stages: list[StageRecord]
    source: dict[str, Any] = Field(description="weights_sha256 and what the run record says, without paths")
    data: DataRef | None
    metrics: dict[str, Any]
    files: list[FileEntry]

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def input_channels(self) -> int:
        """Channels of the input, however the artifact stores it."""
        tensor = self.inputs[0]
        return tensor.shape[-1] if tensor.layout == "NHWC" else tensor.shape[1]


R = TypeVar("R", bound=Record)


def load_record(path: Path, kind: type[R]) -> R:
    """Read and validate one record.

    Raises:
        InputError: missing, not JSON, or not a valid record of this kind and version.
    """
    document = read_json(path)
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is not a valid {kind.__name__}: {where}: {first['msg']}") from None


def save_record(path: Path, record: Record) -> None:
    """Write one record atomically."""
    write_json(path, record.model_dump(mode="json", by_alias=True))
