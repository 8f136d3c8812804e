"""Mamba-2 in a vision network: blocks in both directions, and a copy of the block that calls the scan itself."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from mamba_ssm import Mamba2
from mamba_ssm.distributed.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from mamba_ssm.modules.mamba2_simple import Mamba2Simple
from mamba_ssm.ops.triton.layernorm_gated import RMSNorm as RMSNormGated
from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

try:
    from causal_conv1d import causal_conv1d_fn
except ImportError:
    causal_conv1d_fn = None


class Own(nn.Module):
    def __init__(self, d_model, d_state=4, headdim=4, ngroups=2, process_group=None):
        super().__init__()
        self.linear = ColumnParallelLinear if process_group else nn.Linear
        self.last = RowParallelLinear if process_group else nn.Linear
        self.d_state, self.headdim, self.ngroups, self.nheads = d_state, headdim, ngroups, d_model // headdim
        self.convolved = d_model + 2 * ngroups * d_state
        self.in_proj = self.linear(d_model, d_model + self.convolved + self.nheads)
        self.conv1d = nn.Conv1d(self.convolved, self.convolved, 4, groups=self.convolved, padding=3)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, self.nheads + 1).float()))
        self.D = nn.Parameter(torch.ones(self.nheads, headdim))
        self.dt_bias = nn.Parameter(torch.linspace(-3, 0, self.nheads))
        self.norm = RMSNormGated(d_model, norm_before_gate=True)
        self.out_proj = self.last(d_model, d_model)

    def forward(self, u):
        z, xbc, dt = torch.split(self.in_proj(u), [u.shape[-1], self.convolved, self.nheads], dim=-1)
        xbc = causal_conv1d_fn(
            xbc.transpose(1, 2), self.conv1d.weight.squeeze(1), self.conv1d.bias, activation="swish"
        ).transpose(1, 2)  # fmt: skip
        x, B, C = torch.split(xbc, [u.shape[-1], self.ngroups * self.d_state, self.ngroups * self.d_state], dim=-1)
        y = mamba_chunk_scan_combined(
            x.unflatten(-1, (-1, self.headdim)),
            dt,
            -torch.exp(self.A_log.float()),
            B.unflatten(-1, (self.ngroups, -1)),
            C.unflatten(-1, (self.ngroups, -1)),
            chunk_size=256,
            D=self.D,
            z=None,
            dt_bias=self.dt_bias,
            dt_softplus=True,
            dt_limit=(0.001, 2.0),
        )
        return self.out_proj(self.norm(y.flatten(2), z))


class Net(nn.Module):
    def __init__(self, dim=16, patch=2, classes=3):
        super().__init__()
        self.embed = nn.Conv2d(3, dim, patch, patch)
        self.ahead = Mamba2(dim, d_state=8, headdim=8, chunk_size=16)
        self.back = Mamba2(dim, d_state=8, headdim=8, d_ssm=24, ngroups=3, D_has_hdim=True, rmsnorm=False)
        self.simple = Mamba2Simple(dim, d_state=4, headdim=8, learnable_init_states=True)
        nn.init.normal_(self.simple.init_states, std=0.1)
        self.own = Own(dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.head = nn.Conv2d(dim, classes, 1)

    def forward(self, image):
        x = self.embed(image)
        height, width = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        y = self.norms[0](x)
        x = x + self.ahead(y) + self.back(y.flip(1)).flip(1)
        x = x + self.simple(self.norms[1](x))
        x = x + self.own(self.norms[2](x))
        x = self.head(x.transpose(1, 2).unflatten(2, (height, width)))
        return F.interpolate(x, scale_factor=2, mode="nearest")
