"""Weights on disk: safetensors only, checked against the network they are for. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edgemamba.errors import InputError
from edgemamba.files import write_bytes
from edgemamba.models.base import Network
from edgemamba.registry import MODELS


def save_weights(path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
    """Write the state dict of ``model`` and ``metadata`` as one safetensors file, atomically.

    Raises:
        InputError: the place cannot be written.
    """
    save_tensors(path, model.state_dict(), metadata)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors by name and ``metadata`` as one safetensors file, atomically.

    Raises:
        InputError: the place cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata={"format": "pt", **metadata}))


def load_weights(path: Path, model: nn.Module) -> dict[str, str]:
    """Load a file of ``save_weights`` into ``model``, on whatever device it is.

    Returns:
        The metadata saved with the weights.

    Raises:
        InputError: missing, not safetensors, damaged, not finite, or the weights of another network.
    """
    tensors, metadata = read_weights(path)
    _check_fit(path, {name: tuple(t.shape) for name, t in tensors.items()}, model)
    # Networks that differ in their forward pass alone have equal shapes.
    said, info = metadata.get("model"), getattr(model, "info", None)
    if said is not None and info is not None and said != info.name:
        raise InputError(f"{path} holds the weights of {said}", hint=f"choose --model {said}")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} holds values that are not finite", hint="use an earlier checkpoint")
    model.load_state_dict(tensors)
    return metadata


def build_trained(name: str, path: Path, classes: int | None = None) -> Network:
    """The registered network ``name`` with the weights at ``path``: float32, evaluation mode, on the CPU.

    Args:
        name: registry name.
        path: safetensors file.
        classes: of a classifier; None takes the published network's.

    Raises:
        UsageError: unknown name.
        InputError: what ``load_weights`` refuses.
    """
    from edgemamba.models import build

    model = build(name, classes=classes)
    load_weights(path, model)
    return model.eval()


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        InputError: missing, a pickle, not safetensors, or cut off.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file", hint="name a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        if _looks_pickled(path):
            raise InputError(
                f"{path} is a PyTorch pickle, which can run code when it is loaded and is never opened here",
                hint=f"edgemamba convert-weights {path} makes safetensors of it without running any code of it",
            ) from None
        raise InputError(f"{path} is not a whole safetensors file: {error}", hint="copy or train it again") from None


def _looks_pickled(path: Path) -> bool:
    """A pickle starts with the protocol mark 0x80; ``torch.save`` wraps one in a zip."""
    with path.open("rb") as stream:
        start = stream.read(2)
    return zipfile.is_zipfile(path) or (start[:1] == b"\x80" and start[1:] <= b"\x05")


def _check_fit(path: Path, shapes: dict[str, tuple[int, ...]], model: nn.Module) -> None:
    expected = shapes_of(model)
    if shapes == expected:
        return
    looks_like = next((name for name in MODELS if shapes_of(empty(name)) == shapes), None)
    if looks_like is not None:
        raise InputError(f"{path} holds the weights of {looks_like}", hint=f"choose --model {looks_like}")
    different = sorted(key for key in expected.keys() | shapes.keys() if expected.get(key) != shapes.get(key))
    key = different[0]
    raise InputError(
        f"{path} does not fit the network: {len(different)} tensors differ, first {key}: "
        f"{shapes.get(key, 'missing')} in the file, {expected.get(key, 'none')} expected",
        hint="it is the checkpoint of another network or of another version",
    )


def empty(name: str) -> nn.Module:
    """A registered network without values: names and shapes only."""
    from edgemamba.models import build

    with torch.device("meta"):
        return build(name)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of every entry of the state dict, by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
