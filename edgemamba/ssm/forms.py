"""Which algorithm a network runs: one network, one set of weights, several equal ways of computing.

``train``      the default: two-pass scan with recomputation, CPU and CUDA
``reference``  sequential scan, any float type
``onnx``       plain tensor operations, unrolled, laid out for ONNX Runtime and TensorRT
``litert``     the same for LiteRT with XNNPACK
``off``        the recurrence switched off (y = D u), to see what the state space contributes

A plain function, such as the ``selective_scan_fn`` of another project's layer, has no module to switch: it asks
``active_form``, which ``use_form`` sets for its block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal, get_args

from torch import nn

Form = Literal["train", "reference", "onnx", "litert", "off"]
FORMS: tuple[Form, ...] = get_args(Form)
EXPORT_FORMS: tuple[Form, ...] = ("onnx", "litert")

_ACTIVE: ContextVar[Form] = ContextVar("edgemamba_form", default="train")


def active_form() -> Form:
    """The form of the ``use_form`` block that is running; "train" outside of any."""
    return _ACTIVE.get()


class FormModule(nn.Module):
    """A module that computes the same function in several forms."""

    form: Form = "train"

    def use(self, form: Form) -> None:
        """Switch to ``form``; overridden where constants have to be prepared."""
        self.form = form


def set_form(module: nn.Module, form: Form) -> None:
    """Switch every part of ``module`` to ``form``.

    The export forms fold some weights into constants now: set them after loading weights and moving devices.

    Raises:
        ValueError: no such form.
    """
    if form not in FORMS:
        raise ValueError(f"no form {form!r}; forms are {', '.join(FORMS)}")
    for part in module.modules():
        if isinstance(part, FormModule):
            part.use(form)


@contextlib.contextmanager
def use_form(module: nn.Module, form: Form) -> Iterator[None]:
    """Switch ``module``, and functions that ask ``active_form``, to ``form`` inside the block, and back after it."""
    before = [(part, part.form) for part in module.modules() if isinstance(part, FormModule)]
    set_form(module, form)
    token = _ACTIVE.set(form)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
        for part, form_before in before:
            part.use(form_before)
