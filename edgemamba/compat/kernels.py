"""What of ``triton`` a model file needs to be imported on a machine without a GPU.

VMamba's files define Triton kernels beside a form in plain PyTorch. Here a kernel can be defined; launching one is
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgemamba.errors import Unsupported


class Kernel:
    """A function under ``triton.jit``."""

    def __init__(self, function: Any) -> None:
        self.fn = function
        self.__name__ = getattr(function, "__name__", "kernel")

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        """A launch, refused."""
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuse to run."""
        raise Unsupported(
            f"the network runs the Triton kernel {self.__name__}, which only a GPU can",
            hint="choose the network's form in plain PyTorch, in VMamba a forward_type such as v2 or v05_noz with "
            "force_torch",
        )


def jit(function: Any = None, **_: Any) -> Any:
    """``triton.jit``, with or without arguments."""
    return Kernel if function is None else Kernel(function)


def decorator(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """``triton.autotune`` and ``triton.heuristics``: the kernel as it is."""
    return lambda kernel: kernel


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least ``n``."""
    return 1 << (n - 1).bit_length()


class Config:
    """One setting of an autotuner."""

    def __init__(self, kwargs: Any = None, **more: Any) -> None:
        self.kwargs, self.more = kwargs, more


class Name:
    """A name of ``triton.language`` where only its presence matters: in annotations and kernel bodies."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Name:
        """A name below this one."""
        if name.startswith("__"):
            raise AttributeError(name)
        return Name(f"{self.__name__}.{name}")

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuse to run."""
        raise Unsupported(f"{self.__name__} only runs on a GPU", hint="choose the network's form in plain PyTorch")
