"""The Mamba block (Mamba-1) with the parameter names of state-spaces/mamba.

Glossary: d_model c, d_inner D = 2c, d_state N = 16, d_conv 4, dt_rank R = ceil(c / 16), L tokens, G sequences.
"""

from __future__ import annotations

import copy
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.ssm import export_forms, scan_op
from edgemamba.ssm.forms import EXPORT_FORMS, Form, FormModule, set_form
from edgemamba.ssm.reference import selective_scan
from edgemamba.ssm.selective import SelectiveSSM, reset_state_space, train_state_space
from edgemamba.ssm.two_pass import chunk_length, with_history


@dataclasses.dataclass(frozen=True)
class ScanCall:
    """One selective scan of a network: ``groups`` independent sequences of ``length`` tokens in one call."""

    name: str
    length: int
    d_inner: int
    d_state: int
    dt_rank: int
    groups: int


class Mamba(FormModule):
    """Selective state space block, tokens (B, L, d_model) -> (B, L, d_model).

    Source: Gu and Dao, "Mamba", section 3.4; names, order and initialisation of ``mamba_simple.Mamba``.
    """

    _rates: Tensor

    def __init__(self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_inner = expand * d_model
        self.dt_rank = math.ceil(d_model / 16)
        self.A_log = nn.Parameter(torch.empty(self.d_inner, d_state))
        self.D = nn.Parameter(torch.empty(self.d_inner))
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        self.register_buffer("_rates", torch.empty(0), persistent=False)
        reset_state_space(self.A_log, self.D, self.dt_proj)

    def use(self, form: Form) -> None:
        """Switch form; the export forms hold ``A = -exp(A_log)`` as a constant, computed now."""
        super().use(form)
        rates = -torch.exp(self.A_log.detach())
        self._rates = rates if form in EXPORT_FORMS else rates.new_empty(0)

    def chunk(self, length: int, groups: int) -> int:
        """Q, the steps per chunk in which tokens in scan order have to come."""
        if self.form in EXPORT_FORMS:
            return export_forms.choose_form(length, self.d_inner, self.d_state, groups).chunk
        if self.form == "train":
            return chunk_length(length, self.A_log.device)
        return length

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, L, d_model), or in scan order (Q, K, G, d_model) with Q from ``chunk`` -> same shape."""
        if x.dim() == 4:
            return self._scan_order(x)
        batch, length, d_model = (int(n) for n in x.shape)
        chunk = self.chunk(length, batch)
        x = F.pad(x, (0, 0, 0, -length % chunk))
        y = self._scan_order(x.reshape(batch, -1, chunk, d_model).permute(2, 1, 0, 3).contiguous())
        return y.permute(2, 1, 0, 3).reshape(batch, -1, d_model)[:, :length]

    def _scan_order(self, tokens: Tensor) -> Tensor:
        if self.form in EXPORT_FORMS:
            length = int(tokens.shape[0]) * int(tokens.shape[1])
            form = export_forms.choose_form(length, self.d_inner, self.d_state, int(tokens.shape[2]))
            # The TFLite stage takes the recurrence as one operator (see scan_op), ONNX as plain operations.
            recurrences = scan_op if self.form == "litert" else export_forms
            if form.algorithm == "two-pass":
                return export_forms.two_pass_core(tokens, self._weights(), recurrences.two_pass)
            return export_forms.sequential_core(tokens, self._weights(), recurrences.sequential)
        if self.form == "train":
            return self._train(tokens)
        return self._as_published(tokens)

    def _train(self, tokens: Tensor) -> Tensor:
        """Channels first throughout: every product, split and step is a contiguous piece."""
        chunk, chunks, groups, d_model = tokens.shape
        xz = torch.matmul(self.in_proj.weight, tokens.reshape(-1, d_model).t())
        with torch.autocast(tokens.device.type, enabled=False):
            if xz.dtype in (torch.float16, torch.bfloat16):
                xz = xz.float()
            x, z = xz.split(self.d_inner)
            x = F.silu(self._causal_conv(x.view(self.d_inner, chunk, -1), groups)).flatten(1)
            x = x.view(-1, chunk, chunks, groups)
            y = train_state_space(x, self.x_proj, self.dt_proj, self.A_log, self.D)
            y = y.flatten(1) * F.silu(z)
        return torch.matmul(y.t(), self.out_proj.weight.t()).view(tokens.shape)

    def _causal_conv(self, x: Tensor, groups: int) -> Tensor:
        """Depthwise causal convolution of x (d_inner, Q, K*G) along time."""
        taps, chunk = self.d_conv, x.shape[1]
        weight, bias = self.conv1d.weight[:, 0, :, None, None], self.conv1d.bias
        assert bias is not None
        x = with_history(x, taps - 1, groups)
        y = torch.addcmul(bias[:, None, None], x[:, :chunk], weight[:, 0])
        for tap in range(1, taps):
            y = torch.addcmul(y, x[:, tap : tap + chunk], weight[:, tap])
        return y

    def _as_published(self, tokens: Tensor) -> Tensor:
        """Step by step (form "reference"), or with the recurrence off (form "off"); one chunk."""
        length, _, groups, d_model = tokens.shape
        x = tokens.reshape(length, groups, d_model).transpose(0, 1)
        u, z = self.in_proj(x).transpose(1, 2).split(self.d_inner, dim=1)
        u = F.silu(self.conv1d(u)[..., :length])
        if self.form == "off":
            y = self.D[:, None] * u * F.silu(z)
        else:
            ranks = [self.dt_rank, self.d_state, self.d_state]
            r, B, C = self.x_proj(u.transpose(1, 2)).transpose(1, 2).split(ranks, dim=1)
            dt = F.softplus(self.dt_proj(r.transpose(1, 2)).transpose(1, 2))
            y = selective_scan(u, dt, -torch.exp(self.A_log), B, C, self.D, z)
        return self.out_proj(y.transpose(1, 2)).transpose(0, 1).reshape(tokens.shape)

    def _weights(self) -> export_forms.Weights:
        conv_bias = self.conv1d.bias
        assert conv_bias is not None
        return export_forms.Weights(
            A=self._rates,
            D=self.D,
            in_proj=self.in_proj.weight,
            conv=self.conv1d.weight[:, 0],
            conv_bias=conv_bias,
            x_proj=self.x_proj.weight,
            dt_proj=self.dt_proj.weight,
            dt_bias=self.dt_proj.bias,
            out_proj=self.out_proj.weight,
        )


def scan_calls(model: nn.Module, size: tuple[int, int], in_channels: int = 3) -> list[ScanCall]:
    """Every selective scan of ``model`` for one image of ``size`` (height, width), in the order they run."""
    shadow = copy.deepcopy(model).to("meta")
    set_form(shadow, "off")
    calls: list[ScanCall] = []
    for name, block in shadow.named_modules():
        if isinstance(block, (Mamba, SelectiveSSM)):

            def record(block: Mamba | SelectiveSSM, inputs: tuple[Tensor, ...], name: str = name) -> None:
                shape = inputs[0].shape
                if isinstance(block, SelectiveSSM):
                    groups, length = shape[0], shape[2]
                else:
                    groups, length = (shape[2], shape[0] * shape[1]) if len(shape) == 4 else shape[:2]
                calls.append(ScanCall(name, length, block.d_inner, block.d_state, block.dt_rank, groups))

            block.register_forward_pre_hook(record)
    with torch.no_grad():
        shadow(torch.zeros(1, in_channels, *size, device="meta"))
    return calls
