"""A checkpoint of another project's training as safetensors of the names that its network has.

``torch.load`` runs with weights_only: no code of the file is executed (``models.pickled``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from edgemamba.errors import InputError, UsageError, did_you_mean
from edgemamba.files import write_bytes
from edgemamba.models.pickled import read_checkpoint

# Under which names training scripts keep the state dict, those of averaged weights last.
_KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "network_weights",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "generator",
    "state_dict_ema",
    "model_ema",
    "ema",
)
# What wrappers put before every name: DataParallel, torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
# What profilers (thop) leave behind in a state dict.
_COUNTERS = ("total_ops", "total_params")
_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class Converted:
    """What was done to a checkpoint.

    Attributes:
        tensors: how many were written.
        parameters: numbers in them.
        taken_from: path of keys to the state dict in the file; "" for the file itself.
        prefix: what stood before every name.
        counters: entries of a profiler left out.
        others: names of entries left out because they hold no tensor.
        shared: tensors that had one memory, written once for each name.
        narrow: types that became float32.
    """

    tensors: int
    parameters: int
    taken_from: str
    prefix: str
    counters: int
    others: tuple[str, ...]
    shared: int
    narrow: tuple[str, ...]

    def lines(self) -> list[tuple[str, str]]:
        """For people."""
        told = [
            ("tensors", f"{self.tensors} with {self.parameters:,} numbers"),
            ("taken from", self.taken_from or "the file itself"),
            ("prefix removed", self.prefix),
            ("left out", ", ".join(self.others)),
            ("profiler counters left out", str(self.counters or "")),
            ("shared tensors written for each name", str(self.shared or "")),
            ("made float32", ", ".join(self.narrow)),
        ]
        return [(name, value) for name, value in told if value]


def convert(path: Path, out: Path, key: str | None = None) -> Converted:
    """Write the state dict in ``path`` as safetensors to ``out``, atomically.

    Args:
        path: of ``torch.save`` (.pth, .pt, .bin, .ckpt) or safetensors.
        out: the file to write.
        key: which entry is the state dict, with dots between levels; None: found by its usual names.

    Raises:
        InputError: no checkpoint, one that needs code to be loaded, or no state dict in it.
        UsageError: no entry ``key``.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"{out} does not end in .safetensors", hint="edgemamba convert-weights in.pth out.safetensors")
    document = read_checkpoint(path)
    found, taken = _at(document, key, path) if key is not None else _search(document, path)
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    others = tuple(str(name) for name, value in found.items() if not isinstance(value, Tensor))
    prefix = ""
    while more := next((p for p in _PREFIXES if all(name.startswith(prefix + p) for name in tensors)), ""):
        prefix += more
    plain = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    kept = {name: tensor for name, tensor in plain.items() if name.split(".")[-1] not in _COUNTERS}
    if any(tensor.is_complex() for tensor in kept.values()):
        raise InputError(f"{path} holds complex tensors, which no network here has", hint="export another network")
    narrow = {t.dtype for t in kept.values() if t.is_floating_point() and t.dtype != torch.float32}
    places = [tensor.untyped_storage().data_ptr() for tensor in kept.values() if tensor.numel()]
    # Each name gets memory of its own: safetensors knows no aliases.
    written = {name: (t.float() if t.is_floating_point() else t).detach().clone() for name, t in kept.items()}
    written = {name: tensor.contiguous() for name, tensor in written.items()}
    write_bytes(out, save(written, metadata={"format": "pt", "converted_from": path.name}))
    return Converted(
        len(written),
        sum(tensor.numel() for tensor in written.values()),
        taken,
        prefix,
        len(plain) - len(kept),
        others,
        len(places) - len(set(places)),
        tuple(sorted(str(dtype).removeprefix("torch.") for dtype in narrow)),
    )


def _is_state(value: Any) -> bool:
    """A mapping of names to tensors, mostly: scripts add a version or a step."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(name, str) for name in value):
        return False
    count = sum(isinstance(item, Tensor) for item in value.values())
    return count * 2 > len(value)


def _search(document: Any, path: Path, taken: str = "") -> tuple[Mapping[Any, Any], str]:
    if _is_state(document):
        return document, taken
    if isinstance(document, Mapping):
        for key in _KEYS:
            if isinstance(document.get(key), Mapping):
                try:
                    return _search(document[key], path, f"{taken}.{key}".removeprefix("."))
                except InputError:
                    continue
    raise InputError(
        f"{path} holds no state dict: it is {_shown(document)}",
        hint="name the entry that holds the tensors with --key, such as --key model.encoder",
    )


def _at(document: Any, key: str, path: Path) -> tuple[Mapping[Any, Any], str]:
    value = document
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = [str(name) for name in value] if isinstance(value, Mapping) else []
            hint = did_you_mean(part, known) if known else f"it is {_shown(value)}"
            raise UsageError(f"{path} has no entry {key}", hint=hint)
        value = value[part]
    if not _is_state(value):
        raise InputError(f"entry {key} of {path} holds no tensors by name: it is {_shown(value)}")
    return value, key


def _shown(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    names = [str(name) for name in value]
    more = ", ..." if len(names) > _SHOWN else ""
    return f"a dict of {', '.join(names[:_SHOWN])}{more}" if names else "an empty dict"
