"""``mamba_ssm.modules.mlp.GatedMLP`` and how ``mixer_seq_simple`` starts the weights around Mamba."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GatedMLP(nn.Module):
    """Two layers with a gate between them, (..., in_features) -> (..., out_features).

    Args:
        hidden_features: None: 8/3 of ``in_features``; rounded up to ``multiple_of`` in both cases.

    Source: argument meaning and parameter names of state-spaces/mamba, modules/mlp.py.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        activation: Callable[[Tensor], Tensor] = F.silu,
        bias: bool = False,
        multiple_of: int = 128,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        width = int(8 * in_features / 3) if hidden_features is None else hidden_features
        width = -(-width // multiple_of) * multiple_of
        self.activation = activation
        self.fc1 = nn.Linear(in_features, 2 * width, bias=bias, device=device, dtype=dtype)
        self.fc2 = nn.Linear(width, out_features or in_features, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The second half of the first layer's output is the gate."""
        value, gate = self.fc1(x).chunk(2, -1)
        out: Tensor = self.fc2(value * self.activation(gate))
        return out


def _init_weights(
    module: nn.Module,
    n_layer: int,
    initializer_range: float = 0.02,
    rescale_prenorm_residual: bool = True,
    n_residuals_per_layer: int = 1,
) -> None:
    """For ``nn.Module.apply``: no bias at first, and layers that add to the residual sum smaller with depth.

    Source: argument meaning of state-spaces/mamba, models/mixer_seq_simple.py.
    """
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=initializer_range)
    # The bias of dt_proj has a start of its own.
    if isinstance(module, nn.Linear) and module.bias is not None and not getattr(module.bias, "_no_reinit", False):
        nn.init.zeros_(module.bias)
    if not rescale_prenorm_residual:
        return
    for name, weight in module.named_parameters():
        if name in ("out_proj.weight", "fc2.weight"):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            with torch.no_grad():
                weight.div_(math.sqrt(n_residuals_per_layer * n_layer))
