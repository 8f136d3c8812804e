"""LightM-UNet's residual vision Mamba layer, and UltraLight VM-UNet's parallel one."""

import torch
import torch.nn.functional as F
from mamba_ssm import Mamba
from torch import nn


class RVMLayer(nn.Module):
    def __init__(self, input_dim, output_dim, d_state=16, d_conv=4, expand=2):
        super().__init__()
        self.input_dim, self.output_dim = input_dim, output_dim
        self.norm = nn.LayerNorm(input_dim)
        self.mamba = Mamba(d_model=input_dim, d_state=d_state, d_conv=d_conv, expand=expand)
        self.proj = nn.Linear(input_dim, output_dim)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        if x.dtype == torch.float16:
            x = x.type(torch.float32)
        B, C = x.shape[:2]
        assert self.input_dim == C
        n_tokens = x.shape[2:].numel()
        img_dims = x.shape[2:]
        x_flat = x.reshape(B, C, n_tokens).transpose(-1, -2)
        x_norm = self.norm(x_flat)
        x_mamba = self.mamba(x_norm) + self.skip_scale * x_flat
        x_mamba = self.proj(self.norm(x_mamba))
        return x_mamba.transpose(-1, -2).reshape(B, self.output_dim, *img_dims)


class PVMLayer(nn.Module):
    def __init__(self, input_dim, output_dim, d_state=16, d_conv=4, expand=2):
        super().__init__()
        self.input_dim, self.output_dim = input_dim, output_dim
        self.norm = nn.LayerNorm(input_dim)
        self.mamba = Mamba(d_model=input_dim // 4, d_state=d_state, d_conv=d_conv, expand=expand)
        self.proj = nn.Linear(input_dim, output_dim)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        B, C = x.shape[:2]
        n_tokens = x.shape[2:].numel()
        img_dims = x.shape[2:]
        x_norm = self.norm(x.reshape(B, C, n_tokens).transpose(-1, -2))
        x1, x2, x3, x4 = torch.chunk(x_norm, 4, dim=2)
        x_mamba = torch.cat([self.mamba(x) + self.skip_scale * x for x in (x1, x2, x3, x4)], dim=2)
        x_mamba = self.proj(self.norm(x_mamba))
        return x_mamba.transpose(-1, -2).reshape(B, self.output_dim, *img_dims)


class LightMUNet(nn.Module):
    def __init__(self, filters=8, out_channels=2):
        super().__init__()
        self.convInit = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.Conv2d(3, filters, 1))
        self.down = nn.Sequential(RVMLayer(filters, 2 * filters), nn.MaxPool2d(2))
        self.norm1, self.act = nn.GroupNorm(4, 2 * filters), nn.ReLU(inplace=True)
        self.bottleneck = PVMLayer(2 * filters, 2 * filters)
        self.up = nn.Conv2d(2 * filters, filters, 1)
        self.final = nn.Conv2d(filters, out_channels, 1)

    def forward(self, x):
        x = self.convInit(x)
        y = self.bottleneck(self.act(self.norm1(self.down(x))))
        y = F.interpolate(self.up(y), size=x.shape[2:], mode="bilinear", align_corners=False)
        return torch.sigmoid(self.final(x + y))
