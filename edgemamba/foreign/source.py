"""The source of an export: another project's file, class, arguments and weights."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemamba.errors import InputError, UsageError, require
from edgemamba.files import sha256_bytes, sha256_file, sha256_json
from edgemamba.registry import ModelInfo
from edgemamba.sources import ModuleSource

if TYPE_CHECKING:
    from torch import nn

_EXAMPLE = "--input 1x3x224x224"


@dataclasses.dataclass(frozen=True)
class Request:
    """What a user asked for.

    Attributes:
        path: the Python file.
        name: class, or function that returns the network.
        kwargs: its arguments.
        weights: safetensors; None: seeded random weights.
        shape: of the input, (1, C, H, W).
        output: which of its outputs; None: the first.
        images: folder of a user's own images.
        seed: of random weights.
    """

    path: Path
    name: str
    kwargs: dict[str, Any]
    weights: Path | None
    shape: tuple[int, int, int, int]
    output: str | None = None
    images: Path | None = None
    seed: int = 0


def parse(
    module: str,
    kwargs: str | None,
    weights: str | None,
    shape: str | None,
    output: str | None = None,
    images: Path | None = None,
    seed: int = 0,
) -> Request:
    """The options of the command line, checked.

    Raises:
        UsageError: not ``file.py:Class``, no JSON object, or no shape 1xCxHxW.
    """
    file, colon, name = module.rpartition(":")
    if not colon or not file or not name:
        raise UsageError(f"--module {module} names no class", hint="--module path/to/file.py:Class")
    return Request(
        Path(file),
        name,
        _arguments(kwargs),
        None if weights is None else Path(weights),
        _shape(shape),
        output,
        images,
        seed,
    )


def _arguments(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"--kwargs is not JSON: {error.msg} at position {error.pos}",
            hint='quote it for the shell: --kwargs \'{"depths": [2, 2], "num_classes": 10}\'',
        ) from None
    if not isinstance(found, dict):
        raise UsageError(
            f"--kwargs is a JSON {type(found).__name__}, not an object", hint="--kwargs '{\"name\": value}'"
        )
    return found


def _shape(text: str | None) -> tuple[int, int, int, int]:
    if text is None:
        raise UsageError("--module needs the shape of the network's input", hint=_EXAMPLE)
    numbers = re.fullmatch(r"(\d+)(?:x(\d+))+", text.strip().lower().replace("×", "x").replace(",", "x"))
    sizes = [int(n) for n in re.findall(r"\d+", text)] if numbers else []
    if len(sizes) == 3:
        sizes.insert(0, 1)
    if len(sizes) == 5:
        raise UsageError(f"--input {text} has five axes: only images are exported", hint=_EXAMPLE)
    if len(sizes) != 4 or not all(sizes):
        raise UsageError(f"--input {text} is not a shape 1xCxHxW", hint=_EXAMPLE)
    if sizes[0] != 1:
        raise UsageError(f"--input {text} has a batch of {sizes[0]}: exports take one image at a time", hint=_EXAMPLE)
    return sizes[0], sizes[1], sizes[2], sizes[3]


def open_module(request: Request) -> tuple[ModuleSource, list[str]]:
    """Build the network once, and describe it.

    Returns:
        The source, and notes for the user: what was provided, which weights and output are taken.

    Raises:
        MissingDependency, InputError, UsageError: see ``load``, ``build`` and ``models.weights.load_weights``.
    """
    require("torch", "train")
    from edgemamba.compat import installed
    from edgemamba.foreign.build import choose_output

    with installed() as finder:
        network, files = _network(request)
        chosen, note = choose_output(network, request.shape, request.output)
    notes = []
    if finder.provided:
        notes.append(f"edgemamba.compat provides {', '.join(_told(finder.provided))} to {request.path.name}")
    if finder.kept:
        notes.append(f"{request.path.name} keeps its project's own {', '.join(_told(finder.kept))}")
    if request.weights is None:
        notes.append(f"no --weights: random weights of seed {request.seed}, the result is for timing only")
    if note:
        notes.append(f"{note}; choose another with --output")
    asked = dataclasses.replace(request, output=chosen)
    provenance = {
        "module": f"{request.path.name}:{request.name}",
        "code": {path.name: sha256_file(path) for path in files},
        "kwargs": request.kwargs,
        "output": chosen,
        "weights": "safetensors" if request.weights is not None else f"random, seed {request.seed}",
    }
    parameters = sum(parameter.numel() for parameter in network.parameters())
    name = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", request.name).lower()).strip("-")
    info = ModelInfo(
        name or "network",
        "",
        {},
        parameters,
        1,
        "tensor",
        f"{request.name} of {request.path.name}",
        size=request.shape[2:],
    )
    source = ModuleSource(
        f"{request.path.name}:{request.name}",
        info,
        _weights_sha256(request, network),
        request.shape[2:],
        request.shape[1],
        functools.partial(_made, asked),
        request.images,
        provenance,
    )
    return source, notes


def _told(provided: list[str]) -> list[str]:
    """The innermost of the modules that were served: packages around them say nothing."""
    return [name for name in provided if not any(other.startswith(f"{name}.") for other in provided)]


def _network(request: Request) -> tuple[nn.Module, list[Path]]:
    from edgemamba.foreign.build import construct
    from edgemamba.models.weights import load_weights

    network, files = construct(request.path, request.name, request.kwargs, request.seed)
    if request.weights is not None:
        if not request.weights.is_file():
            raise InputError(f"{request.weights} does not exist or is not a file", hint="--weights FILE.safetensors")
        load_weights(request.weights, network)
    return network, files


def _made(request: Request) -> nn.Module:
    from edgemamba.compat import installed
    from edgemamba.foreign.build import Foreign

    assert request.output is not None
    with installed():
        return Foreign(_network(request)[0], request.output)


def _weights_sha256(request: Request, network: nn.Module) -> str:
    """Of the file; of random weights, of the tensors."""
    import torch

    if request.weights is not None:
        return sha256_file(request.weights)
    tensors = {name: tensor.contiguous().reshape(-1) for name, tensor in network.state_dict().items()}
    return sha256_json({name: sha256_bytes(t.view(torch.uint8).numpy().tobytes()) for name, t in tensors.items()})
