"""The state a run resumes from: one safetensors file, the numbers beside the tensors as JSON in its header.

One file, written to a temporary name and renamed: it is either the whole last epoch or the whole one before.
Everything else in the run folder follows from it. No random state is in it: order and random numbers follow
from seed and epoch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from edgemamba.errors import InputError
from edgemamba.files import write_bytes

_SCHEMA = "edgemamba.train-state/2"


def save_state(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and a JSON document atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(document, allow_nan=False)
    write_bytes(path, safetensors.torch.save(plain, {"schema": _SCHEMA, "state": text}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_state`` wrote.

    Raises:
        InputError: missing, damaged, or another file.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: the run has no finished epoch", hint="train again with --force")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged: {error}", hint="train again with --force") from None
    if metadata.get("schema") != _SCHEMA:
        raise InputError(f"{path} is not a training state ({_SCHEMA})", hint="train again with --force")
    return tensors, json.loads(metadata["state"])
