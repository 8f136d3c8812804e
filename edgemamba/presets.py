"""Targets and devices are data: one TOML each under ``export/targets`` and ``profiles/devices``.

The data folders lie at the top of a checkout and inside the package (``edgemamba/_data``) of an installed wheel.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgemamba.errors import InputError, UsageError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Format = Literal["onnx", "tflite"]
Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(_Record):
    """What one board can load (``export/targets/NAME.toml``)."""

    name: str
    kind: str = Field(description="generic name; the newest board of a kind answers to it")
    newest: bool = False
    title: str
    format: Format
    formats: list[Format] = Field(description="what --format may choose")
    runtime: Literal["onnxruntime", "litert", "tensorrt"]
    opset: int = Field(description="ONNX operator set; the oldest runtime of the board loads it")
    ir_version: int
    python: str = Field(description="Python versions of the board's systems, as a note for people")
    requirements: list[str] = Field(description="requirements.txt of the Bundle, TFLite or ONNX line included")
    device: str = Field(description="profiles/devices name")
    notes: str = ""


class Device(_Record):
    """Facts about one board (``profiles/devices/NAME.toml``), with their source in ``source``."""

    name: str
    title: str
    cpu: str
    cores: int
    architecture: str
    memory: str
    accelerator: str = "none"
    features: str = ""
    sensors: list[str] = Field(default_factory=list)
    measured: bool = Field(description="whether edgemamba has run on this board")
    source: str
    notes: str = ""


@functools.cache
def data_root() -> Path:
    """Folder that holds ``export`` and ``profiles``: inside an installed package, else the checkout."""
    package = Path(__file__).parent
    for root in (package / "_data", package.parent):
        if (root / "export" / "targets").is_dir():
            return root
    raise InputError("edgemamba's own data folders are missing", hint="reinstall edgemamba")


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        InputError: missing, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid: {error}") from None


def _load(folder: str, record: type[_Record]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted((data_root() / folder).glob("*.toml")):
        try:
            item = record.model_validate({"name": path.stem, **read_toml(path)})
        except ValidationError as error:
            raise InputError(f"{folder}/{path.name} is not valid: {error}") from None
        found[path.stem] = item
    return found


@functools.cache
def targets() -> dict[str, Target]:
    """Every export target by name."""
    return _load("export/targets", Target)


@functools.cache
def devices() -> dict[str, Device]:
    """Every described device by name."""
    return _load("profiles/devices", Device)


def find_target(name: str) -> Target:
    """A target by its name, or by its kind (then the newest board of that kind).

    Raises:
        UsageError: unknown name.
    """
    known = targets()
    if name in known:
        return known[name]
    for target in known.values():
        if target.kind == name and target.newest:
            return target
    raise UsageError(
        f"no target is named {name!r}", hint=did_you_mean(name, {*known, *(t.kind for t in known.values())})
    )


def find_device(name: str) -> Device:
    """A device by name.

    Raises:
        UsageError: unknown name.
    """
    known = devices()
    if name not in known:
        raise UsageError(f"no device is named {name!r}", hint=did_you_mean(name, known))
    return known[name]
