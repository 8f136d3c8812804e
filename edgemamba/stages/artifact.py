"""What a stage hands to the next one: a file, what it is, and facts about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgemamba.errors import InputError, UsageError
from edgemamba.files import sha256_file
from edgemamba.presets import Format, Precision


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One exported network.

    Attributes:
        path: the file; never changed once it is an artifact.
        format: onnx or tflite.
        precision: fp32, fp16 or int8.
        sha256: of the file's bytes.
        facts: JSON-able: counts, sizes, versions.
    """

    path: Path
    format: Format
    precision: Precision
    sha256: str
    facts: dict[str, Any]


def open_artifact(path: Path, format: Format, precision: Precision, facts: dict[str, Any]) -> Artifact:
    """Make an Artifact of a file that exists.

    Raises:
        InputError: the file is missing.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist", hint="run the stage that writes it")
    return Artifact(path, format, precision, sha256_file(path), facts)


def expect(artifact: Artifact, stage: str, format: Format, *precisions: Precision) -> None:
    """Refuse an artifact that ``stage`` cannot take.

    Raises:
        UsageError: another format or precision than the stage works on.
    """
    if artifact.format != format or artifact.precision not in precisions:
        raise UsageError(
            f"{stage} takes {format} {' or '.join(precisions)}, not {artifact.format} {artifact.precision} "
            f"({artifact.path.name})",
            hint=f"give it the {format} {precisions[0]} artifact of the export stage",
        )
