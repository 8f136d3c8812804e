"""Build a network of another project from its class: arguments, weights, and which of its outputs is meant."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgemamba.errors import EdgemambaError, InputError, UsageError, did_you_mean
from edgemamba.foreign.load import find, imported, line_of
from edgemamba.models.located import located, summary


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """stdout carries results only, and code that is some years old is warned of in every line."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", kind)
        yield


class Foreign(nn.Module):
    """A network that gives one float tensor, whatever else its own forward pass returns or prints.

    Args:
        network: takes one image (1, C, H, W).
        output: which of its tensors: a key of a dict, or the position in what it returns, counted in depth.
    """

    def __init__(self, network: nn.Module, output: str) -> None:
        super().__init__()
        self.network = network
        self.output = output

    def forward(self, image: Tensor) -> Tensor:
        """The chosen output, float32."""
        with quiet():
            found = self.network(image)
        value = outputs(found)[self.output]
        return value if value.is_floating_point() else value.float()


def outputs(value: Any) -> dict[str, Tensor]:
    """Every tensor that a forward pass returned, by key or position: of ``(a, {"x": b})`` 0 and 1.x."""
    if isinstance(value, Tensor):
        return {"0": value}
    return dict(_walk(value, ""))


def _walk(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, f"{path}.{key}".removeprefix("."))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}.{index}".removeprefix("."))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _walk(getattr(value, field.name), f"{path}.{field.name}".removeprefix("."))


def construct(path: Path, name: str, kwargs: Mapping[str, Any], seed: int) -> tuple[nn.Module, list[Path]]:
    """``name(**kwargs)`` of the file ``path``, with seeded random weights, in evaluation mode.

    Call it inside ``compat.installed``.

    Returns:
        The network, and the project's files that were imported for it.

    Raises:
        MissingDependency, InputError: what ``load.imported`` raises; no such class; its own refusal; not a network.
    """
    with quiet(), imported(path) as loaded, torch.random.fork_rng(devices=[]):
        maker = find(loaded.module, name, path)
        arguments = {key: _resolved(value) for key, value in kwargs.items()}
        torch.manual_seed(seed)
        try:
            network = maker(**arguments)
        except Exception as error:  # the border to another project's code, which may raise anything
            raise _not_built(error, maker, name, path) from error
        files = loaded.files()
    if not isinstance(network, nn.Module):
        raise InputError(
            f"{name} of {path.name} made a {type(network).__name__}, not a torch.nn.Module",
            hint="name the network's class, or a function that returns the network",
        )
    return network.cpu().float().eval(), files


def _resolved(value: Any) -> Any:
    """A string "@torch.nn.LayerNorm" is the object of that name; other values, lists and dicts are as they are."""
    if isinstance(value, str) and value.startswith("@"):
        module, _, name = value[1:].rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UsageError(
                f"--kwargs names {value}, which cannot be found: {error}", hint='as "@torch.nn.LayerNorm"'
            ) from None
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    if isinstance(value, dict):
        return {key: _resolved(item) for key, item in value.items()}
    return value


def _not_built(error: Exception, maker: Any, name: str, path: Path) -> EdgemambaError:
    if isinstance(error, EdgemambaError):
        error.message = f"{error.message}, while {name} was built ({line_of(error, path)})"
        return error
    try:
        takes = str(inspect.signature(maker))
    except (TypeError, ValueError):
        takes = ""
    hint = f"{name}{takes[:300]}" if isinstance(error, TypeError) and takes else "check --kwargs"
    if "cuda" in str(error).lower():
        hint = (
            'it asks for a GPU: pass --kwargs \'{"device": "cpu"}\' if it takes that, or take .cuda() out of its file'
        )
    return InputError(f"{name} cannot be built: {summary(error)}, at {line_of(error, path)}", hint=hint)


def choose_output(network: nn.Module, shape: tuple[int, ...], asked: str | None) -> tuple[str, str]:
    """Which tensor of the forward pass is exported, and a note where there was a choice.

    Raises:
        UsageError: ``asked`` is none of them.
        InputError: the network does not take the input, or returns no tensor.
    """
    refused = functools.partial(_refused, shape=shape)
    with torch.no_grad(), quiet(), located(network, refused):
        found = outputs(network(torch.zeros(*shape)))
    if not found:
        raise InputError("the network returns no tensor", hint="name a class whose forward returns one")
    told = ", ".join(f"{key} {'x'.join(map(str, value.shape))}" for key, value in found.items())
    if asked is not None:
        if asked not in found:
            raise UsageError(f"the network has no output {asked}: it returns {told}", hint=did_you_mean(asked, found))
        return asked, ""
    first = next(iter(found))
    return first, f"the network returns {len(found)} tensors ({told}): {first} is exported" if len(found) > 1 else ""


def _refused(error: Exception, place: str, shape: tuple[int, ...]) -> EdgemambaError:
    hint = "give the size it was made for as --input 1xCxHxW, or fit its constructor's --kwargs to the size"
    if "(Conv3d)" in place:
        hint = "it works on volumes; build its form for images, often with --kwargs '{\"spatial_dims\": 2}'"
    return InputError(
        f"the network cannot run on an input of {'x'.join(map(str, shape))}: {summary(error)}, in {place}", hint=hint
    )
