"""Four directions as VM-UNet and MedMamba call them: stacked and flipped sequences, selective_scan_fn with K * D channels."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint as checkpoint

try:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn, selective_scan_ref
except:  # noqa: E722
    pass

# an alternative for mamba_ssm
try:
    from selective_scan import selective_scan_fn as selective_scan_fn_v1
    from selective_scan import selective_scan_ref as selective_scan_ref_v1
except:  # noqa: E722
    pass


class PatchEmbed2D(nn.Module):
    def __init__(self, patch_size=4, in_chans=3, embed_dim=96):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, x):
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PatchMerging2D(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x):
        B, H, W, C = x.shape
        if (W % 2 != 0) or (H % 2 != 0):
            print(f"Warning, x.shape {x.shape} is not match even ===========", flush=True)
        x0 = x[:, 0::2, 0::2, :]
        x1 = x[:, 1::2, 0::2, :]
        x2 = x[:, 0::2, 1::2, :]
        x3 = x[:, 1::2, 1::2, :]
        x = torch.cat([x0, x1, x2, x3], -1).view(B, H // 2, W // 2, 4 * C)
        return self.reduction(self.norm(x))


class PatchExpand2D(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(dim // 2)

    def forward(self, x):
        B, H, W, C = x.shape
        x = self.expand(x).view(B, H, W, 2, 2, C // 2).permute(0, 1, 3, 2, 4, 5).reshape(B, 2 * H, 2 * W, C // 2)
        return self.norm(x)


class SS2D(nn.Module):
    def __init__(self, d_model, d_state=16, d_conv=3, expand=2, dt_rank="auto", version="v0"):
        super().__init__()
        self.d_inner, self.d_state = int(expand * d_model), d_state
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.in_proj = nn.Linear(d_model, self.d_inner * 2, bias=False)
        self.conv2d = nn.Conv2d(self.d_inner, self.d_inner, d_conv, padding=(d_conv - 1) // 2, groups=self.d_inner)
        self.act = nn.SiLU()
        K, N, R, D = 4, d_state, self.dt_rank, self.d_inner
        self.x_proj_weight = nn.Parameter(torch.randn(K, R + N * 2, D) * D**-0.5)
        self.dt_projs_weight = nn.Parameter((torch.rand(K, D, R) - 0.5) * 2 * R**-0.5)
        self.dt_projs_bias = nn.Parameter(torch.rand(K, D) * 2 - 5)
        self.A_logs = nn.Parameter(torch.log(torch.arange(1, N + 1).float()).repeat(K * D, 1))
        self.Ds = nn.Parameter(torch.ones(K * D))
        self.forward_core = self.forward_corev0 if version == "v0" else self.forward_corev1
        self.out_norm = nn.LayerNorm(self.d_inner)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def _directions(self, x):
        B, C, H, W = x.shape
        L, K = H * W, 4
        x_hwwh = torch.stack(
            [x.view(B, -1, L), torch.transpose(x, dim0=2, dim1=3).contiguous().view(B, -1, L)], dim=1
        ).view(B, 2, -1, L)
        xs = torch.cat([x_hwwh, torch.flip(x_hwwh, dims=[-1])], dim=1)  # (b, k, d, l)
        x_dbl = torch.einsum("b k d l, k c d -> b k c l", xs.view(B, K, -1, L), self.x_proj_weight)
        dts, Bs, Cs = torch.split(x_dbl, [self.dt_rank, self.d_state, self.d_state], dim=2)
        dts = torch.einsum("b k r l, k d r -> b k d l", dts.view(B, K, -1, L), self.dt_projs_weight)
        return xs, dts, Bs, Cs

    def _merge(self, out_y, H, W):
        B, K, _, L = out_y.shape
        inv_y = torch.flip(out_y[:, 2:4], dims=[-1]).view(B, 2, -1, L)
        wh_y = torch.transpose(out_y[:, 1].view(B, -1, W, H), dim0=2, dim1=3).contiguous().view(B, -1, L)
        invwh_y = torch.transpose(inv_y[:, 1].view(B, -1, W, H), dim0=2, dim1=3).contiguous().view(B, -1, L)
        return out_y[:, 0] + inv_y[:, 0] + wh_y + invwh_y

    def forward_corev0(self, x):
        self.selective_scan = selective_scan_fn
        B, C, H, W = x.shape
        L, K = H * W, 4
        xs, dts, Bs, Cs = self._directions(x)
        xs = xs.float().view(B, -1, L)
        dts = dts.contiguous().float().view(B, -1, L)
        Bs, Cs = Bs.float().view(B, K, -1, L), Cs.float().view(B, K, -1, L)
        As = -torch.exp(self.A_logs.float()).view(-1, self.d_state)
        out_y = self.selective_scan(
            xs, dts, As, Bs, Cs, self.Ds.float().view(-1), z=None,
            delta_bias=self.dt_projs_bias.float().view(-1), delta_softplus=True, return_last_state=False,
        ).view(B, K, -1, L)  # fmt: skip
        return self._merge(out_y, H, W)

    def forward_corev1(self, x):
        self.selective_scan = selective_scan_fn_v1
        B, C, H, W = x.shape
        L, K = H * W, 4
        xs, dts, Bs, Cs = self._directions(x)
        As = -torch.exp(self.A_logs.float()).view(-1, self.d_state)
        out_y = self.selective_scan(
            xs.view(B, -1, L), dts.contiguous().view(B, -1, L), As, Bs, Cs, self.Ds.view(-1),
            delta_bias=self.dt_projs_bias.view(-1), delta_softplus=True,
        ).view(B, K, -1, L)  # fmt: skip
        return self._merge(out_y, H, W)

    def forward(self, x):
        B, H, W, C = x.shape
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x = self.act(self.conv2d(x.permute(0, 3, 1, 2).contiguous()))
        y = self.forward_core(x)
        y = torch.transpose(y, dim0=1, dim1=2).contiguous().view(B, H, W, -1)
        return self.out_proj(self.out_norm(y).to(x.dtype) * F.silu(z))


class VSSBlock(nn.Module):
    def __init__(self, dim, d_state, version):
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim, eps=1e-6)
        self.self_attention = SS2D(dim, d_state=d_state, version=version)

    def forward(self, x):
        return x + self.self_attention(self.ln_1(x))


class VSSLayer(nn.Module):
    def __init__(self, dim, depth, d_state, version, after=None, before=None):
        super().__init__()
        self.blocks = nn.ModuleList([VSSBlock(dim, d_state, version) for _ in range(depth)])
        self.after, self.before, self.use_checkpoint = after, before, False

    def forward(self, x):
        if self.before is not None:
            x = self.before(x)
        for blk in self.blocks:
            x = checkpoint.checkpoint(blk, x) if self.use_checkpoint else blk(x)
        return x if self.after is None else self.after(x)


class VMUNet(nn.Module):
    def __init__(self, num_classes=1, depths=[1, 1], dims=[16, 32], d_state=4, version="v0", in_chans=3):
        super().__init__()
        self.patch_embed = PatchEmbed2D(4, in_chans, dims[0])
        self.layers = nn.ModuleList(
            [
                VSSLayer(d, n, d_state, version, after=PatchMerging2D(d) if i < len(dims) - 1 else None)
                for i, (d, n) in enumerate(zip(dims, depths))
            ]
        )
        self.layers_up = nn.ModuleList(
            [
                VSSLayer(d, n, d_state, version, before=None if i == 0 else PatchExpand2D(2 * d))
                for i, (d, n) in enumerate(zip(dims[::-1], depths[::-1]))
            ]
        )
        self.final_up = nn.Linear(dims[0], 16 * (dims[0] // 4), bias=False)
        self.final_conv = nn.Conv2d(dims[0] // 4, num_classes, 1)

    def forward(self, x):
        skip_list = []
        x = self.patch_embed(x)
        for layer in self.layers:
            skip_list.append(x)
            x = layer(x)
        for inx, layer_up in enumerate(self.layers_up):
            x = layer_up(x) if inx == 0 else layer_up(x + skip_list[-inx] if x.shape == skip_list[-inx].shape else x)
        B, H, W, C = x.shape
        x = self.final_up(x).view(B, H, W, 4, 4, C // 4).permute(0, 1, 3, 2, 4, 5).reshape(B, 4 * H, 4 * W, C // 4)
        return self.final_conv(x.permute(0, 3, 1, 2))
