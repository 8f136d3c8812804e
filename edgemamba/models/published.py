"""Published checkpoints: from what their training scripts saved to the tensors of one registered network.

Layouts: wurenkai/UltraLight-VM-UNet saves plain state dicts or a dict with ``model_state_dict``, after thop has put
counters on the modules; the paper's notebooks save DataParallel state dicts (``module.``); U-Mamba saves every
convolution under two names and its whole encoder a second time inside the decoder.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgemamba.errors import InputError
from edgemamba.models.weights import empty, shapes_of
from edgemamba.registry import MODELS, model_info

_WRAPPERS = ("model_state_dict", "state_dict", "network_weights", "model", "net", "weights", "params")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_COUNTERS = ("total_ops", "total_params")
# Another name of a tensor -> the name that is kept.
_ALIASES = (
    (re.compile(r"\.all_modules\.0\.(weight|bias)$"), r".conv.\1"),
    (re.compile(r"^decoder\.encoder\."), "encoder."),
)
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Published:
    """A checkpoint as one registered network has it.

    Attributes:
        model: registry name.
        tensors: state dict, float32 where floating.
        also: other networks of exactly these shapes.
        wrapper: key under which the file held the state dict; None where it was the file itself.
        prefix: what stood before every name.
        aliases: entries dropped because another name holds the same values.
        counters: entries of a profiler dropped.
        converted: dtypes that became float32.
    """

    model: str
    tensors: dict[str, Tensor]
    also: tuple[str, ...]
    wrapper: str | None
    prefix: str
    aliases: int
    counters: int
    converted: tuple[str, ...]


def recognise(document: Any, label: str, model: str | None = None) -> Published:
    """Find the network whose weights ``document`` holds, by the names and shapes of all of its tensors.

    Args:
        document: what ``pickled.read_checkpoint`` gave.
        label: what to call the file in errors.
        model: registry name where shapes leave a choice, or to be sure.

    Raises:
        InputError: no tensors, aliases that differ, values that are not finite, or shapes of no registered network.
        UsageError: no model is named ``model``.
    """
    found, wrapper = _unwrap(document, label)
    found, prefix = _without_prefix(found)
    plain = {name: tensor for name, tensor in found.items() if name.split(".")[-1] not in _COUNTERS}
    tensors = _without_aliases(plain, label)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    fitting = [name for name in MODELS if _shapes(name) == shapes]
    wanted = None if model is None else model_info(model).name
    if wanted is None and fitting:
        wanted = fitting[0]
    if wanted is None or wanted not in fitting:
        raise _stranger(shapes, label, wanted, fitting)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{label}: {name} holds values that are not finite", hint="import an earlier checkpoint")
    odd = {t.dtype for t in tensors.values() if t.is_floating_point() and t.dtype != torch.float32}
    return Published(
        model=wanted,
        tensors={name: t.float() if t.is_floating_point() else t for name, t in tensors.items()},
        also=tuple(name for name in fitting if name != wanted),
        wrapper=wrapper,
        prefix=prefix,
        aliases=len(plain) - len(tensors),
        counters=len(found) - len(plain),
        converted=tuple(sorted(str(dtype).removeprefix("torch.") for dtype in odd)),
    )


def rgb_from_bgr(tensors: dict[str, Tensor]) -> str:
    """Turn the first convolution's input channels round, so that a network trained on B, G, R takes R, G, B.

    Exact: the same products in another order. Changes ``tensors`` in place.

    Returns:
        Name of the tensor turned.
    """
    name = next(name for name, t in tensors.items() if t.ndim == 4 and t.shape[1] == 3)
    tensors[name] = tensors[name].flip(1).contiguous()
    return name


def _unwrap(document: Any, label: str) -> tuple[dict[str, Tensor], str | None]:
    """The state dict of a file, and under which key it lay."""
    if isinstance(document, Mapping):
        if document and all(isinstance(value, Tensor) for value in document.values()):
            return dict(document), None
        for key in _WRAPPERS:
            inner = document.get(key)
            if isinstance(inner, Mapping) and inner and all(isinstance(value, Tensor) for value in inner.values()):
                return dict(inner), key
        keys = ", ".join(str(key) for key in list(document)[:_SHOWN])
        seen = f"a dict of {len(document)} entries ({keys} ...)" if document else "an empty dict"
    else:
        seen = f"a {type(document).__name__}"
    raise InputError(
        f"{label} holds no state dict but {seen}", hint=f"expected tensors by name, or those under {_WRAPPERS[0]}"
    )


def _without_prefix(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Names without what a wrapper (DataParallel, torch.compile, Lightning) has put before all of them."""
    prefix = ""
    while True:
        more = next((p for p in _PREFIXES if all(name.startswith(prefix + p) for name in tensors)), None)
        if more is None:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, prefix
        prefix += more


def _without_aliases(tensors: dict[str, Tensor], label: str) -> dict[str, Tensor]:
    """One name a tensor; the others must hold the same values."""
    kept = {name: tensor for name, tensor in tensors.items() if _first_name(name) == name}
    for name, tensor in tensors.items():
        first = _first_name(name)
        if first not in kept:
            kept[first] = tensor
        elif first != name and not torch.equal(kept[first], tensor):
            raise InputError(
                f"{label}: {name} should repeat {first}, and its values differ",
                hint="the file was edited or merged: import the original checkpoint",
            )
    return kept


def _first_name(name: str) -> str:
    for pattern, replacement in _ALIASES:
        name = pattern.sub(replacement, name)
    return name


def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    return shapes_of(empty(name))


def _stranger(shapes: dict[str, tuple[int, ...]], label: str, wanted: str | None, fitting: list[str]) -> InputError:
    """What to say of shapes that are not those of the network wanted, or of any."""
    if fitting:
        return InputError(f"{label} holds the weights of {fitting[0]}, not of {wanted}", hint=f"--model {fitting[0]}")
    known = {name: _shapes(name) for name in ([wanted] if wanted is not None else MODELS)}
    wrong = {
        name: sorted(key for key in own.keys() | shapes.keys() if own.get(key) != shapes.get(key))
        for name, own in known.items()
    }
    nearest = min(known, key=lambda name: (len(wrong[name]), name))
    own = known[nearest]
    first = "; ".join(
        f"{key} {shapes.get(key, 'missing')} in the file, {own.get(key, 'none')} expected"
        for key in wrong[nearest][:_SHOWN]
    )
    which = f"{label} does not fit {wanted}" if wanted else f"{label} fits no network here, nearest {nearest}"
    return InputError(
        f"{which}: {len(wrong[nearest])} tensors differ from its {len(own)}: {first}",
        hint="edgemamba list models has every network; a variant of another width or depth is not among them",
    )
