"""``mamba_ssm.Mamba2`` and ``Mamba2Simple``; parameter names of the originals.

Glossary: d_model c, d_inner = expand * c, of which d_ssm = h p channels are scanned by h heads of ``headdim`` p; B and
C of ``ngroups`` g groups with ``d_state`` n states each.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from edgemamba.compat.norms import GatedRMSNorm
from edgemamba.compat.ssd import mamba_split_conv1d_scan_combined
from edgemamba.errors import Unsupported


class Mamba2(nn.Module):
    """Block of one scan a head, tokens (b, l, d_model) -> (b, l, d_model).

    Args:
        d_ssm: channels that are scanned; the rest is a gated linear unit. None is all of them.
        D_has_hdim: a skip for every channel instead of every head.
        rmsnorm: normalise before the last projection; without it the gate is all there is.
        chunk_size: of the original's kernels, as are ``use_mem_eff_path`` and ``sequence_parallel``; no effect here.

    Raises:
        Unsupported: ``process_group``: channels shared between processes.

    Source: Dao and Gu, "Transformers are SSMs" (2024), section 7; names and arguments of state-spaces/mamba,
    modules/mamba2.py.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: float = 2,
        headdim: int = 64,
        d_ssm: int | None = None,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        process_group: Any = None,
        sequence_parallel: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        del use_mem_eff_path, sequence_parallel
        if process_group is not None:
            raise Unsupported("Mamba2 with a process_group is not available", hint="leave it out")
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = int(expand * d_model)
        self.headdim, self.ngroups = headdim, ngroups
        self.d_ssm = self.d_inner if d_ssm is None else d_ssm
        if self.d_ssm % headdim:
            raise ValueError(f"{self.d_ssm} channels cannot be divided into heads of headdim={headdim}")
        self.nheads = self.d_ssm // headdim
        self.D_has_hdim, self.rmsnorm, self.norm_before_gate = D_has_hdim, rmsnorm, norm_before_gate
        self.dt_limit, self.chunk_size, self.layer_idx = dt_limit, chunk_size, layer_idx
        self.activation, self.act = "silu", nn.SiLU()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        convolved = self.d_ssm + 2 * ngroups * d_state
        wide = 2 * self.d_inner + 2 * ngroups * d_state + self.nheads
        self.in_proj = nn.Linear(d_model, wide, bias=bias, **place)
        self.conv1d = nn.Conv1d(
            convolved, convolved, d_conv, groups=convolved, padding=d_conv - 1, bias=conv_bias, **place
        )
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        low, high = math.log(dt_min), math.log(dt_max)
        dt = torch.exp(low + torch.rand(self.nheads, device=device) * (high - low))
        dt = dt.clamp(min=dt_init_floor)
        # The inverse of softplus, so that dt comes out of softplus(dt_bias).
        self.dt_bias = _undecayed((dt + torch.log(-torch.expm1(-dt))).to(dtype))
        rates = torch.empty(self.nheads, device=device).uniform_(*A_init_range)
        self.A_log = _undecayed(torch.log(rates).to(dtype))
        self.D = _undecayed(torch.ones(self.d_ssm if D_has_hdim else self.nheads, device=device))
        if rmsnorm:
            self.norm = GatedRMSNorm(self.d_ssm, 1e-5, self.d_ssm // ngroups, norm_before_gate, **place)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **place)

    def forward(
        self,
        u: Tensor,
        seqlen: int | None = None,
        seq_idx: Any = None,
        cu_seqlens: Any = None,
        inference_params: Any = None,
    ) -> Tensor:
        """Tokens (b, l, d_model), or (b l, d_model) with ``seqlen`` l -> same shape.

        Raises:
            Unsupported: packed sequences or ``inference_params``, which belong to language models.
        """
        if inference_params is not None or cu_seqlens is not None:
            raise Unsupported(
                "Mamba2 with inference_params or cu_seqlens is not available", hint="give whole sequences, one a row"
            )
        tokens = u if seqlen is None else u.unflatten(0, (-1, seqlen))
        y = self._mixed(tokens, seq_idx, None)
        return y if seqlen is None else y.flatten(0, 1)

    def _mixed(self, tokens: Tensor, seq_idx: Any, initial_states: Tensor | None) -> Tensor:
        rates = self.A_log if self.A_log.dtype == torch.float64 else self.A_log.float()
        y = mamba_split_conv1d_scan_combined(
            self.in_proj(tokens),
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            self.dt_bias,
            -torch.exp(rates),
            self.D.unflatten(0, (-1, self.headdim)) if self.D_has_hdim else self.D,
            self.chunk_size,
            initial_states=initial_states,
            seq_idx=seq_idx,
            dt_limit=self.dt_limit,
            activation=self.activation,
            rmsnorm_weight=self.norm.weight if self.rmsnorm else None,
            rmsnorm_eps=1e-5,
            headdim=self.headdim,
            ngroups=self.ngroups,
            norm_before_gate=self.norm_before_gate,
        )
        out: Tensor = self.out_proj(y)
        return out


class Mamba2Simple(Mamba2):
    """``Mamba2`` with every channel scanned and, if asked, a first state that is learnt: parameter ``init_states``.

    Source: names and arguments of state-spaces/mamba, modules/mamba2_simple.py.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: float = 2,
        headdim: int = 128,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        learnable_init_states: bool = False,
        activation: str = "swish",
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            d_model,
            d_state,
            d_conv,
            conv_init,
            expand,
            headdim,
            ngroups=ngroups,
            A_init_range=A_init_range,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_init_floor=dt_init_floor,
            dt_limit=dt_limit,
            bias=bias,
            conv_bias=conv_bias,
            chunk_size=chunk_size,
            use_mem_eff_path=use_mem_eff_path,
            layer_idx=layer_idx,
            device=device,
            dtype=dtype,
        )
        self.activation, self.learnable_init_states = activation, learnable_init_states
        if learnable_init_states:
            self.init_states = _undecayed(torch.zeros(self.nheads, headdim, d_state, device=device, dtype=dtype))

    def forward(self, u: Tensor, seq_idx: Any = None) -> Tensor:  # type: ignore[override]
        """Tokens (b, l, d_model) -> same shape."""
        start = self.init_states.expand(len(u), -1, -1, -1) if self.learnable_init_states else None
        return self._mixed(u, seq_idx, start)


def _undecayed(value: Tensor) -> nn.Parameter:
    parameter = nn.Parameter(value)
    # Trainers leave weight decay off where this mark is.
    parameter._no_weight_decay = True  # type: ignore[attr-defined]
    return parameter
