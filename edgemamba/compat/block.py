"""``mamba_ssm.modules.mamba_simple.Block``: add, normalise, mix; the residual sum travels beside the tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgemamba.compat.mamba import Mamba
from edgemamba.compat.norms import RMSNorm, layer_norm_fn


class Block(nn.Module):
    """(tokens, residual) -> (mixer of the normalised sum, sum); tokens (b, L, dim).

    Args:
        mixer_cls: makes the mixer from ``dim``.
        mlp_cls: makes a second part after the mixer, as newer releases have it; None or ``nn.Identity``: no such part.
        fused_add_norm: chooses a kernel in the original; the sum is float32 in both cases where asked.

    Source: argument meaning of state-spaces/mamba, mamba_simple.py before release 2 and modules/block.py after.
    """

    def __init__(
        self,
        dim: int,
        mixer_cls: Callable[[int], nn.Module],
        mlp_cls: Callable[[int], nn.Module] | None = None,
        norm_cls: Callable[[int], nn.Module] = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        super().__init__()
        self.fused_add_norm, self.residual_in_fp32 = fused_add_norm, residual_in_fp32
        self.norm, self.mixer = norm_cls(dim), mixer_cls(dim)
        self.mlp: nn.Module | None = None
        if mlp_cls is not None and mlp_cls is not nn.Identity:
            self.norm2, self.mlp = norm_cls(dim), mlp_cls(dim)

    def forward(
        self, hidden_states: Tensor, residual: Tensor | None = None, inference_params: Any = None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Tokens and the sum so far -> the mixer's output and the new sum."""
        hidden_states, residual = self._add(self.norm, hidden_states, residual)
        hidden_states = self.mixer(hidden_states, inference_params=inference_params, **options)
        if self.mlp is not None:
            hidden_states, residual = self._add(self.norm2, hidden_states, residual)
            hidden_states = self.mlp(hidden_states)
        return hidden_states, residual

    def _add(self, norm: nn.Module, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if isinstance(norm, nn.LayerNorm | RMSNorm):
            found = layer_norm_fn(
                x,
                norm.weight,
                norm.bias,
                residual,
                eps=norm.eps,
                prenorm=True,
                residual_in_fp32=self.residual_in_fp32,
                is_rms_norm=isinstance(norm, RMSNorm),
            )
            assert isinstance(found, tuple)
            return found
        total = x if residual is None else x + residual
        return norm(total), total.float() if self.residual_in_fp32 else total


class SimpleBlock(Block):
    """``Block`` as ``mamba_simple`` had it: ``norm_cls`` is its third argument and there is no second part."""

    def __init__(
        self,
        dim: int,
        mixer_cls: Callable[[int], nn.Module],
        norm_cls: Callable[[int], nn.Module] = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        super().__init__(dim, mixer_cls, None, norm_cls, fused_add_norm, residual_in_fp32)


def create_block(
    d_model: int,
    ssm_cfg: dict[str, Any] | None = None,
    norm_epsilon: float = 1e-5,
    rms_norm: bool = False,
    residual_in_fp32: bool = False,
    fused_add_norm: bool = False,
    layer_idx: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Block:
    """A ``SimpleBlock`` with Mamba, as ``mamba_ssm.models.mixer_seq_simple`` makes it."""
    place: dict[str, Any] = {"device": device, "dtype": dtype}
    mixer = partial(Mamba, layer_idx=layer_idx, **(ssm_cfg or {}), **place)
    norm: Callable[[int], nn.Module] = partial(RMSNorm if rms_norm else nn.LayerNorm, eps=norm_epsilon, **place)
    block = SimpleBlock(d_model, mixer, norm, fused_add_norm, residual_in_fp32)
    block.layer_idx = layer_idx  # type: ignore[assignment]
    return block
