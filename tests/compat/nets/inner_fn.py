"""The functions of the interface called with weights of one's own, tokens taken in slices (SegMamba), grey images."""

import torch
from causal_conv1d import causal_conv1d_fn
from mamba_ssm.modules.mamba_simple import Mamba
from mamba_ssm.ops.selective_scan_interface import mamba_inner_fn, mamba_inner_fn_no_out_proj
from torch import nn


class TwoWays(nn.Module):
    def __init__(self, dim=8, d_state=4):
        super().__init__()
        self.in_proj, self.out_proj = nn.Linear(dim, 4 * dim), nn.Linear(2 * dim, dim)
        self.conv1d = nn.Conv1d(2 * dim, 2 * dim, 4, groups=2 * dim, padding=3)
        self.x_proj, self.dt_proj = nn.Linear(2 * dim, 1 + 2 * d_state, bias=False), nn.Linear(1, 2 * dim)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, d_state + 1).float()).repeat(2 * dim, 1))
        self.D = nn.Parameter(torch.ones(2 * dim))

    def forward(self, x):
        xz = self.in_proj(x).transpose(1, 2)
        A = -torch.exp(self.A_log.float())
        first = (self.conv1d.weight, self.conv1d.bias, self.x_proj.weight, self.dt_proj.weight)
        rest = {"delta_bias": self.dt_proj.bias.float(), "delta_softplus": True}
        there = mamba_inner_fn(
            xz, *first, self.out_proj.weight, self.out_proj.bias, A, None, None, self.D.float(), **rest
        )
        back = mamba_inner_fn_no_out_proj(xz.flip([-1]), *first, A, None, None, self.D.float(), **rest)
        conv = causal_conv1d_fn(x=xz[:, : xz.shape[1] // 2].contiguous(), weight=self.conv1d.weight.squeeze(1),
                                bias=self.conv1d.bias, activation="silu")  # fmt: skip
        return there + self.out_proj((back.flip([-1]) + conv).transpose(1, 2))


class Net(nn.Module):
    def __init__(self, channels=1, dim=8):
        super().__init__()
        self.stem = nn.Conv2d(channels, dim, 7, stride=2, padding=3)
        self.two_ways = TwoWays(dim)
        self.sliced = Mamba(dim, d_state=4, bimamba_type="v3", nslices=4)
        self.up = nn.PixelShuffle(2)

    def forward(self, x):
        x = self.stem(x)
        B, C, H, W = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.two_ways(tokens)
        tokens = tokens + self.sliced(tokens)
        return self.up(tokens.transpose(1, 2).reshape(B, C, H, W))
