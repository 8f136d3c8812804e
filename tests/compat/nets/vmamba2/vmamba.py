"""VMamba after its second rewriting: custom autograd functions around the raw kernels, sequences written in place."""

import math
from functools import partial
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

try:
    from .csm_triton import CrossScanTriton
    from .csms6s import SelectiveScanCuda
except ImportError:
    from csm_triton import CrossScanTriton
    from csms6s import SelectiveScanCuda


class CrossScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor):
        B, C, H, W = x.shape
        ctx.shape = (B, C, H, W)
        xs = x.new_empty((B, 4, C, H * W))
        xs[:, 0] = x.flatten(2, 3)
        xs[:, 1] = x.transpose(dim0=2, dim1=3).flatten(2, 3)
        xs[:, 2:4] = torch.flip(xs[:, 0:2], dims=[-1])
        return xs

    @staticmethod
    def backward(ctx, ys: torch.Tensor):
        B, C, H, W = ctx.shape
        L = H * W
        ys = ys[:, 0:2] + ys[:, 2:4].flip(dims=[-1]).view(B, 2, -1, L)
        y = ys[:, 0] + ys[:, 1].view(B, -1, W, H).transpose(dim0=2, dim1=3).contiguous().view(B, -1, L)
        return y.view(B, -1, H, W)


class CrossMerge(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ys: torch.Tensor):
        B, K, D, H, W = ys.shape
        ctx.shape = (H, W)
        ys = ys.view(B, K, D, -1)
        ys = ys[:, 0:2] + ys[:, 2:4].flip(dims=[-1]).view(B, 2, D, -1)
        return ys[:, 0] + ys[:, 1].view(B, -1, W, H).transpose(dim0=2, dim1=3).contiguous().view(B, D, -1)

    @staticmethod
    def backward(ctx, x: torch.Tensor):
        H, W = ctx.shape
        B, C, L = x.shape
        xs = x.new_empty((B, 4, C, L))
        xs[:, 0] = x
        xs[:, 1] = x.view(B, C, H, W).transpose(dim0=2, dim1=3).flatten(2, 3)
        xs[:, 2:4] = torch.flip(xs[:, 0:2], dims=[-1])
        return xs.view(B, 4, C, H, W)


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: torch.Tensor):
        x = x.permute(0, 2, 3, 1)
        x = nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Linear2d(nn.Linear):
    def forward(self, x: torch.Tensor):
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        state_dict[prefix + "weight"] = state_dict[prefix + "weight"].view(self.weight.shape)
        return super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class SS2D(nn.Module):
    def __init__(self, d_model=96, d_state=1, ssm_ratio=2.0, dt_rank="auto", forward_type="v2", channel_first=True):
        super().__init__()
        self.k_group, self.d_state = 4, d_state
        d_inner = int(ssm_ratio * d_model)
        self.dt_rank = int(math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank)
        FORWARD_TYPES = {
            "v2": partial(self.forward_corev2, force_fp32=True, scan=CrossScan),
            "v3": partial(self.forward_corev2, force_fp32=False, scan=CrossScan, backend="mamba"),
            "v4": partial(self.forward_corev2, force_fp32=False, scan=CrossScan, backend="core"),
            "v05": partial(self.forward_corev2, force_fp32=False, scan=CrossScanTriton),
        }
        self.forward_core = FORWARD_TYPES.get(forward_type)
        self.in_proj = Linear2d(d_model, d_inner, bias=False)
        self.act = nn.SiLU()
        self.conv2d = nn.Conv2d(d_inner, d_inner, 3, padding=1, groups=d_inner)
        K, N, R = self.k_group, d_state, self.dt_rank
        self.x_proj_weight = nn.Parameter(torch.randn(K, R + N * 2, d_inner) * d_inner**-0.5)
        self.dt_projs_weight = nn.Parameter((torch.rand(K, d_inner, R) - 0.5) * 2 * R**-0.5)
        self.dt_projs_bias = nn.Parameter(torch.rand(K, d_inner) * 2 - 5)
        self.A_logs = nn.Parameter(torch.log(torch.arange(1, N + 1).float()).repeat(K * d_inner, 1))
        self.Ds = nn.Parameter(torch.ones(K * d_inner))
        self.out_norm = LayerNorm2d(d_inner)
        self.out_proj = Linear2d(d_inner, d_model, bias=False)

    def forward_corev2(self, x, force_fp32=True, scan=CrossScan, backend=None, ssoflex=True):
        B, D, H, W = x.shape
        N, K, R, L = self.d_state, self.k_group, self.dt_rank, H * W
        with torch.cuda.amp.autocast(enabled=False):
            xs = scan.apply(x)
            x_dbl = torch.einsum("b k d l, k c d -> b k c l", xs, self.x_proj_weight)
            dts, Bs, Cs = torch.split(x_dbl, [R, N, N], dim=2)
            dts = torch.einsum("b k r l, k d r -> b k d l", dts, self.dt_projs_weight)
            xs = xs.view(B, -1, L)
            dts = dts.contiguous().view(B, -1, L)
            As = -self.A_logs.to(torch.float).exp()
            Ds = self.Ds.to(torch.float)
            Bs, Cs = Bs.contiguous().view(B, K, N, L), Cs.contiguous().view(B, K, N, L)
            delta_bias = self.dt_projs_bias.view(-1).to(torch.float)
            if force_fp32:
                xs, dts, Bs, Cs = (t.to(torch.float) for t in (xs, dts, Bs, Cs))
            ys = SelectiveScanCuda.apply(xs, dts, As, Bs, Cs, Ds, delta_bias, True, ssoflex, backend)
            y: torch.Tensor = CrossMerge.apply(ys.view(B, K, -1, H, W))
        return self.out_norm(y.view(B, -1, H, W)).to(x.dtype)

    def forward(self, x: torch.Tensor, **kwargs: Any):
        x = self.act(self.conv2d(self.in_proj(x)))
        return self.out_proj(self.forward_core(x))


class VSSBlock(nn.Module):
    def __init__(self, dim, mlp_ratio=4.0, **kwargs):
        super().__init__()
        self.norm, self.op = LayerNorm2d(dim), SS2D(dim, **kwargs)
        self.norm2 = LayerNorm2d(dim)
        self.mlp = nn.Sequential(Linear2d(dim, int(dim * mlp_ratio)), nn.GELU(), Linear2d(int(dim * mlp_ratio), dim))

    def forward(self, x):
        x = x + self.op(self.norm(x))
        return x + self.mlp(self.norm2(x))


class VSSM(nn.Module):
    def __init__(self, in_chans=3, num_classes=10, depths=[1, 1], dims=[16, 32], mlp_ratio=2.0, **kwargs):
        super().__init__()
        d = dims[0]
        self.patch_embed = nn.Sequential(
            nn.Conv2d(in_chans, d // 2, 3, 2, 1), LayerNorm2d(d // 2), nn.GELU(),
            nn.Conv2d(d // 2, d, 3, 2, 1), LayerNorm2d(d),
        )  # fmt: skip
        self.layers = nn.ModuleList()
        for i, depth in enumerate(depths):
            blocks = nn.Sequential(*[VSSBlock(dims[i], mlp_ratio, **kwargs) for _ in range(depth)])
            down = nn.Identity()
            if i < len(depths) - 1:
                down = nn.Sequential(nn.Conv2d(dims[i], dims[i + 1], 3, 2, 1), LayerNorm2d(dims[i + 1]))
            self.layers.append(nn.ModuleDict({"blocks": blocks, "downsample": down}))
        self.classifier = nn.Sequential(
            LayerNorm2d(dims[-1]), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(dims[-1], num_classes)
        )

    def forward(self, x: torch.Tensor):
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer["downsample"](layer["blocks"](x))
        return self.classifier(x)
