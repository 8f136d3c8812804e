"""The recurrence of the export forms as one torch operator each.

torch.export follows one operator in a fraction of the time that two thousand unrolled ones take, and the TFLite
stage writes the unrolled ones for its runtime (``stages.tflite_scan``). Run by torch, the operators compute what
``export_forms`` computes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgemamba.ssm import export_forms


@torch.library.custom_op("edgemamba::two_pass", mutates_args=())
def two_pass(dt: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, groups: int, state_axis: int = 1) -> Tensor:
    """See ``export_forms.two_pass``."""
    return export_forms.two_pass(dt, u, A, B, C, groups, 2 if state_axis == 2 else 1)


@torch.library.custom_op("edgemamba::sequential", mutates_args=())
def sequential(dt: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """See ``export_forms.sequential``."""
    return export_forms.sequential(dt, u, A, B, C)


@two_pass.register_fake
@sequential.register_fake
def _shaped_like_input(_dt: Tensor, u: Tensor, *_rest: Tensor | int) -> Tensor:
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)
