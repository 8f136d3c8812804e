"""Names that model files import and seldom use: importing them works, using them says what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from edgemamba.errors import Unsupported


def absent_class(name: str) -> type[nn.Module]:
    """A class that cannot be built."""

    def refuse(self: nn.Module, *_: Any, **__: Any) -> None:
        del self
        raise Unsupported(f"{name} is not available without its own package", hint=_HINT)

    return type(name.rpartition(".")[2], (nn.Module,), {"__init__": refuse, "__doc__": f"{name}, absent."})


def absent_function(name: str) -> Callable[..., Any]:
    """A function that cannot be called."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise Unsupported(f"{name} is not available without its own package", hint=_HINT)

    return refuse


_HINT = "only the blocks and scans of Mamba-1 and 2 are provided (edgemamba.compat); choose a variant that uses them"


class GenerationMixin:
    """Base class of language models; nothing of it concerns a vision network."""


class InferenceParams:
    """State of a language model while it writes; takes anything and holds it."""

    def __init__(self, max_seqlen: int = 0, max_batch_size: int = 0, **more: Any) -> None:
        self.max_seqlen, self.max_batch_size = max_seqlen, max_batch_size
        self.seqlen_offset = more.get("seqlen_offset", 0)
        self.key_value_memory_dict: dict[int, Any] = {}
