"""``causal_conv1d``: the depthwise causal convolution in front of the scan, as a function."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemamba.errors import Unsupported

_ACTIVATIONS = (None, "silu", "swish")


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Any = None,
    initial_states: Any = None,
    return_final_states: bool = False,
    final_states_out: Any = None,
    activation: str | None = None,
) -> Tensor:
    """Depthwise causal convolution over time, then SiLU if asked.

    Args:
        x: (b, D, L).
        weight: (D, W).
        bias: (D).
        activation: None, "silu" or "swish"; also taken in the place of ``seq_idx``, where releases before 1.2 had it.

    Returns:
        Shaped and typed like ``x``.

    Raises:
        Unsupported: packed sequences or states handed on, which belong to language models.

    Source: argument meaning of Dao-AILab/causal-conv1d, causal_conv1d_interface.py.
    """
    if isinstance(seq_idx, str):
        seq_idx, activation = None, seq_idx
    if seq_idx is not None or initial_states is not None or return_final_states or final_states_out is not None:
        raise Unsupported(
            "causal_conv1d_fn with seq_idx, initial_states or final states is not available",
            hint="give whole sequences, one a row",
        )
    _check_activation(activation)
    channels, taps = (int(n) for n in weight.shape)
    x, kernel, offset = _one_type(x, weight, bias)
    y = F.conv1d(F.pad(x, (taps - 1, 0)), kernel[:, None], offset, groups=channels)
    return F.silu(y) if activation else y


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Any = None,
    conv_state_indices: Any = None,
) -> Tensor:
    """One or more further steps x (b, D) or (b, D, L); ``conv_state`` (b, D, W) moves on in place.

    Raises:
        Unsupported: a circular buffer (``cache_seqlens``, ``conv_state_indices``).
    """
    if cache_seqlens is not None or conv_state_indices is not None:
        raise Unsupported("causal_conv1d_update with a circular buffer is not available", hint="leave it out")
    _check_activation(activation)
    steps = x.unsqueeze(-1) if x.dim() == 2 else x
    taps = int(weight.shape[1])
    known = torch.cat([conv_state.to(steps.dtype), steps], -1)
    conv_state.copy_(known[..., -conv_state.shape[-1] :])
    window, kernel, offset = _one_type(known[..., -(taps - 1 + steps.shape[-1]) :], weight, bias)
    y = F.conv1d(window, kernel[:, None], offset, groups=int(weight.shape[0]))
    y = F.silu(y) if activation else y
    return y.squeeze(-1) if x.dim() == 2 else y


def causal_conv1d_ref(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, **options: Any
) -> Tensor:
    """``causal_conv1d_fn``."""
    return causal_conv1d_fn(x, weight, bias, activation=activation, **options)


def _one_type(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    return x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype)


def _check_activation(activation: str | None) -> None:
    if activation not in _ACTIVATIONS:
        raise NotImplementedError(f"activation must be None, silu or swish, not {activation!r}")
