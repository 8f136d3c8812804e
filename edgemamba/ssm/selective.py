"""A selective state space alone: what stands between the convolution and the gate of a Mamba block.

Networks that scan in several directions have one of these for each, see ``models.vim``.
Glossary: d_inner D, d_state N, dt_rank R, L tokens, G sequences.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.ssm import export_forms, scan_op
from edgemamba.ssm.forms import EXPORT_FORMS, Form, FormModule
from edgemamba.ssm.reference import selective_scan
from edgemamba.ssm.two_pass import chunk_length, from_scan_order, to_scan_order, two_pass_scan

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


@torch.no_grad()
def reset_state_space(A_log: Tensor, D: Tensor, dt_proj: nn.Linear) -> None:
    """Initialise what is peculiar to a state space: A_n = -n, D = 1, dt log-uniform in 0.001 .. 0.1.

    Source: Gu and Dao, "Mamba", section 3.6 and appendix E.5; ``mamba_simple.Mamba``.
    """
    A_log.copy_(torch.log(torch.arange(1, A_log.shape[1] + 1).float()).expand_as(A_log))
    D.fill_(1.0)
    bound = dt_proj.in_features**-0.5
    dt_proj.weight.uniform_(-bound, bound)
    log_dt = torch.rand(dt_proj.out_features) * (math.log(DT_MAX) - math.log(DT_MIN)) + math.log(DT_MIN)
    dt = torch.exp(log_dt).clamp(min=DT_FLOOR)
    # The inverse of softplus, so that dt comes out of softplus(bias).
    dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))


class SelectiveSSM(FormModule):
    """``y = SSM(A, B(u), C(u), dt(u))(u) + D u``, u and y (G, d_inner, L).

    Args:
        d_inner: channels.
        d_state: states a channel.
        dt_rank: rank of the map to the step sizes.

    Source: Gu and Dao, "Mamba", algorithm 2; parameter names of ``mamba_simple.Mamba``.
    """

    _rates: Tensor

    def __init__(self, d_inner: int, d_state: int, dt_rank: int) -> None:
        super().__init__()
        self.d_inner, self.d_state, self.dt_rank = d_inner, d_state, dt_rank
        self.A_log = nn.Parameter(torch.empty(d_inner, d_state))
        self.D = nn.Parameter(torch.empty(d_inner))
        self.x_proj = nn.Linear(d_inner, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, d_inner)
        self.register_buffer("_rates", torch.empty(0), persistent=False)
        reset_state_space(self.A_log, self.D, self.dt_proj)

    def use(self, form: Form) -> None:
        """Switch form; the export forms hold ``A = -exp(A_log)`` as a constant, computed now."""
        super().use(form)
        rates = -torch.exp(self.A_log.detach())
        self._rates = rates if form in EXPORT_FORMS else rates.new_empty(0)

    def forward(self, u: Tensor) -> Tensor:
        """See the class."""
        if self.form == "off":
            return self.D[:, None] * u
        if self.form in EXPORT_FORMS:
            return self._exported(u)
        return self._train(u) if self.form == "train" else self._reference(u)

    def _reference(self, u: Tensor) -> Tensor:
        r, B, C = self.x_proj(u.transpose(1, 2)).transpose(1, 2).split([self.dt_rank, self.d_state, self.d_state], 1)
        dt = F.softplus(self.dt_proj(r.transpose(1, 2)).transpose(1, 2))
        return selective_scan(u, dt, -torch.exp(self.A_log), B, C, self.D)

    def _train(self, u: Tensor) -> Tensor:
        """Channels first, in scan order: every product, split and step is a contiguous piece."""
        with torch.autocast(u.device.type, enabled=False):
            if u.dtype in (torch.float16, torch.bfloat16):
                u = u.float()
            x = to_scan_order(u, chunk_length(int(u.shape[2]), u.device)).contiguous()
            return from_scan_order(train_state_space(x, self.x_proj, self.dt_proj, self.A_log, self.D), int(u.shape[2]))

    def _exported(self, u: Tensor) -> Tensor:
        groups, d_inner, length = (int(n) for n in u.shape)
        chosen = export_forms.choose_form(length, d_inner, self.d_state, groups)
        recurrences = scan_op if self.form == "litert" else export_forms
        weights = self._weights()
        if chosen.algorithm == "sequential":
            rows = u.permute(2, 0, 1).reshape(length * groups, d_inner)
            y = export_forms.sequential_ssm(rows, weights, groups, recurrences.sequential)
            return y.reshape(length, groups, d_inner).permute(1, 2, 0)
        chunk, chunks = chosen.chunk, -(-length // chosen.chunk)
        if length % chunk:
            u = F.pad(u, (0, -length % chunk))
        x = u.permute(1, 2, 0).reshape(d_inner, chunks, chunk, groups).permute(0, 2, 1, 3)
        y = export_forms.two_pass_ssm(
            x.reshape(d_inner, -1), weights, (chunk, chunks * groups, groups), recurrences.two_pass
        )
        y = y.reshape(d_inner, chunk, chunks, groups).permute(0, 2, 1, 3).reshape(d_inner, chunks * chunk, groups)
        return y.permute(2, 0, 1)[:, :, :length]

    def _weights(self) -> export_forms.StateSpace:
        return export_forms.StateSpace(
            A=self._rates,
            D=self.D,
            x_proj=self.x_proj.weight,
            dt_proj=self.dt_proj.weight,
            dt_bias=self.dt_proj.bias,
        )


def train_state_space(x: Tensor, x_proj: nn.Linear, dt_proj: nn.Linear, A_log: Tensor, D: Tensor) -> Tensor:
    """The state space over x (d_inner, Q, K, groups) in scan order, contiguous -> same shape; float32 or float64."""
    rank, d_state = dt_proj.in_features, int(A_log.shape[1])
    r, B, C = torch.matmul(x_proj.weight, x.flatten(1)).split([rank, d_state, d_state])
    dt = F.softplus(torch.addmm(dt_proj.bias[:, None], dt_proj.weight, r))
    shape = (-1, *x.shape[1:])
    return two_pass_scan(x, dt.view(shape), -torch.exp(A_log), B.view(shape), C.view(shape), D)
