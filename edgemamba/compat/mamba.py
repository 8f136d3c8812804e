"""``mamba_ssm.Mamba`` with the directions that vision networks added to it; parameter names of the originals.

``bimamba_type``: "none", one scan; "v1", one more backwards with rates of its own; "v2" (Vim), a whole second set of
weights backwards, ``*_b``; "v3" (SegMamba), a third set ``*_s`` over tokens taken from ``nslices`` slices in turn.

Glossary: d_model c, d_inner D = expand * c, d_state N, L tokens.
"""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from edgemamba.compat.inner import bimamba_inner_fn, mamba_inner_fn_no_out_proj
from edgemamba.errors import Unsupported

_TYPES = ("none", "v1", "v2", "v3")


class Mamba(nn.Module):
    """Selective state space block, tokens (b, L, d_model) -> (b, L, d_model).

    Args:
        dt_rank: "auto" is ceil(d_model / 16).
        dt_init: how ``dt_proj.weight`` starts, "random" or "constant", within ``dt_scale / sqrt(dt_rank)``.
        use_fast_path: chooses a kernel in the original; here there is one way.
        if_divide_out: halve the sum of both directions of "v2"; Vim also spells it ``if_devide_out``.
        init_layer_scale: start of a scale ``gamma`` for every output channel.

    Raises:
        Unsupported: a ``bimamba_type`` that is not known.

    Source: Gu and Dao, "Mamba", section 3.4; Zhu et al., "Vision Mamba", algorithm 1; Xing et al., "SegMamba",
    section 2.2; names and arguments of their public code.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        bimamba_type: str | None = "none",
        if_devide_out: bool = False,
        init_layer_scale: float | None = None,
        nslices: int = 5,
        if_divide_out: bool = False,
    ) -> None:
        super().__init__()
        if (bimamba_type or "none") not in _TYPES:
            raise Unsupported(
                f"Mamba with bimamba_type={bimamba_type!r} is not available", hint=f"known: {', '.join(_TYPES)}"
            )
        if dt_init not in ("random", "constant"):
            raise NotImplementedError(f"dt_init must be random or constant, not {dt_init!r}")
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.use_fast_path, self.layer_idx = use_fast_path, layer_idx
        self.bimamba_type = bimamba_type or "none"
        self.if_devide_out = self.if_divide_out = if_devide_out or if_divide_out
        self.init_layer_scale, self.nslices = init_layer_scale, nslices
        self.activation, self.act = "silu", nn.SiLU()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        if init_layer_scale is not None:
            self.gamma = nn.Parameter(init_layer_scale * torch.ones(d_model, device=device))
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias, **place)
        self._add_direction("", conv_bias, place)
        with torch.no_grad():
            self._start_dt(dt_min, dt_max, dt_init, dt_scale, dt_init_floor)
        if self.bimamba_type == "v1":
            self._add_rates("_b", device)
        for suffix in {"v2": ("_b",), "v3": ("_b", "_s")}.get(self.bimamba_type, ()):
            self._add_direction(suffix, conv_bias, place)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **place)

    def _add_rates(self, suffix: str, device: torch.device | str | None) -> None:
        rates = torch.arange(1, self.d_state + 1, dtype=torch.float32, device=device).repeat(self.d_inner, 1)
        self._keep(f"A{suffix}_log", nn.Parameter(torch.log(rates)))

    def _add_direction(self, suffix: str, conv_bias: bool, place: dict[str, Any]) -> None:
        inner = self.d_inner
        self._add_rates(suffix, place["device"])
        self._keep(f"D{suffix}", nn.Parameter(torch.ones(inner, device=place["device"])))
        conv = nn.Conv1d(inner, inner, self.d_conv, groups=inner, padding=self.d_conv - 1, bias=conv_bias, **place)
        self.add_module(f"conv1d{suffix}", conv)
        x_proj = nn.Linear(inner, self.dt_rank + 2 * self.d_state, bias=False, **place)
        self.add_module(f"x_proj{suffix}", x_proj)
        self.add_module(f"dt_proj{suffix}", nn.Linear(self.dt_rank, inner, bias=True, **place))

    def _keep(self, name: str, parameter: nn.Parameter) -> None:
        # Trainers leave weight decay off where this mark is.
        parameter._no_weight_decay = True  # type: ignore[attr-defined]
        self.register_parameter(name, parameter)

    def _start_dt(self, low: float, high: float, init: str, scale: float, floor: float) -> None:
        bound = self.dt_rank**-0.5 * scale
        assert isinstance(self.dt_proj, nn.Linear)
        weight, bias = self.dt_proj.weight, self.dt_proj.bias
        if init == "constant":
            weight.fill_(bound)
        else:
            weight.uniform_(-bound, bound)
        dt = torch.exp(torch.rand_like(bias) * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=floor)
        # The inverse of softplus, so that dt comes out of softplus(bias).
        bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        bias._no_reinit = True  # type: ignore[attr-defined]

    def forward(self, hidden_states: Tensor, inference_params: Any = None) -> Tensor:
        """Tokens (b, L, d_model) -> same shape.

        Raises:
            Unsupported: ``inference_params``, which belong to language models.
            ValueError: L is no multiple of ``nslices`` ("v3").
        """
        if inference_params is not None:
            raise Unsupported("Mamba with inference_params is not available", hint="give whole sequences")
        xz = self.in_proj(hidden_states).transpose(1, 2)
        if self.bimamba_type == "v1":
            rates = -torch.exp(cast(Tensor, self.A_b_log).float())
            first = self._weights("")
            weights: Any = (*first[:4], self.out_proj.weight, self.out_proj.bias, first[4], rates, *first[5:])
            out = bimamba_inner_fn(xz, *weights)
        else:
            y = mamba_inner_fn_no_out_proj(xz, *self._weights(""))
            if self.bimamba_type in ("v2", "v3"):
                y = y + mamba_inner_fn_no_out_proj(xz.flip(-1), *self._weights("_b")).flip(-1)
            if self.bimamba_type == "v2" and self.if_divide_out:
                y = y / 2
            if self.bimamba_type == "v3":
                y = y + self._sliced(xz)
            out = self.out_proj(y.transpose(1, 2))
        return out if self.init_layer_scale is None else out * self.gamma

    def _sliced(self, xz: Tensor) -> Tensor:
        """Scan over the first token of every slice, then every second one, and so on."""
        batch, channels, length = xz.shape
        if length % self.nslices:
            raise ValueError(f"{length} tokens cannot be divided into nslices={self.nslices} slices")
        turned = xz.reshape(batch, channels, self.nslices, -1).transpose(2, 3).flatten(2)
        y = mamba_inner_fn_no_out_proj(turned, *self._weights("_s"))
        return y.reshape(batch, self.d_inner, -1, self.nslices).transpose(2, 3).flatten(2)

    def _weights(self, suffix: str) -> tuple[Any, ...]:
        """Arguments of ``mamba_inner_fn_no_out_proj`` after xz."""
        conv, x_proj, dt_proj = (getattr(self, f"{name}{suffix}") for name in ("conv1d", "x_proj", "dt_proj"))
        rates = -torch.exp(getattr(self, f"A{suffix}_log").float())
        skip = getattr(self, f"D{suffix}").float()
        return (conv.weight, conv.bias, x_proj.weight, dt_proj.weight, rates, None, None, skip, dt_proj.bias.float())
