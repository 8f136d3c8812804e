"""Where in a network a forward pass failed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from edgemamba.errors import EdgemambaError

_WRAPPED = ("model", "network")


@contextlib.contextmanager
def located(network: nn.Module, told: Callable[[Exception, str], EdgemambaError]) -> Iterator[None]:
    """Turn whatever a forward pass of ``network`` raises inside the block into ``told(error, place)``.

    ``place`` is the innermost module it was in, such as layers.0.blocks.1 (VSSBlock); an error of this package keeps
    its kind and gets the place into its message.
    """
    inside: list[str] = []
    hooks = []
    for name, part in network.named_modules():
        label = place_name(name, type(part).__name__)

        def enter(_: Any, __: Any, label: str = label) -> None:
            inside.append(label)

        def leave(*_: Any) -> None:
            inside.pop()

        hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    except EdgemambaError as error:
        error.message = f"{error.message}, in {inside[-1] if inside else 'the network'}"
        raise
    except Exception as error:  # the border to another project's code, which may raise anything
        raise told(error, inside[-1] if inside else "the network") from error
    finally:
        for hook in hooks:
            hook.remove()


def place_name(path: str, kind: str) -> str:
    """A module by its path in the user's network, without what wraps it here, and its class."""
    parts = path.split(".") if path else []
    while parts and parts[0] in _WRAPPED:
        parts.pop(0)
    return f"{'.'.join(parts) or 'the network'} ({kind.rpartition('.')[2]})"


def summary(error: BaseException) -> str:
    """Type and message of an error of another project's code, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
