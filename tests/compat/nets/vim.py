"""Vision Mamba: bidirectional blocks, the sum and the norm fused, the class token in the middle."""

from functools import partial
from typing import Optional

import torch
import torch.nn as nn
from mamba_ssm.modules.mamba_simple import Mamba
from mamba_ssm.utils.generation import GenerationMixin
from mamba_ssm.utils.hf import load_config_hf, load_state_dict_hf
from positions import *
from torch import Tensor

try:
    from mamba_ssm.ops.triton.layernorm import RMSNorm, layer_norm_fn, rms_norm_fn
except ImportError:
    RMSNorm, layer_norm_fn, rms_norm_fn = None, None, None


class Block(nn.Module):
    def __init__(self, dim, mixer_cls, norm_cls=nn.LayerNorm, fused_add_norm=False, residual_in_fp32=False):
        super().__init__()
        self.residual_in_fp32, self.fused_add_norm = residual_in_fp32, fused_add_norm
        self.mixer, self.norm, self.drop_path = mixer_cls(dim), norm_cls(dim), nn.Identity()
        if self.fused_add_norm:
            assert RMSNorm is not None, "RMSNorm import fails"
            assert isinstance(self.norm, (nn.LayerNorm, RMSNorm))

    def forward(self, hidden_states: Tensor, residual: Tensor | None = None, inference_params=None):
        if not self.fused_add_norm:
            residual = hidden_states if residual is None else residual + self.drop_path(hidden_states)
            hidden_states = self.norm(residual.to(dtype=self.norm.weight.dtype))
            if self.residual_in_fp32:
                residual = residual.to(torch.float32)
        else:
            fused_add_norm_fn = rms_norm_fn if isinstance(self.norm, RMSNorm) else layer_norm_fn
            hidden_states, residual = fused_add_norm_fn(
                hidden_states if residual is None else self.drop_path(hidden_states),
                self.norm.weight,
                self.norm.bias,
                residual=residual,
                prenorm=True,
                residual_in_fp32=self.residual_in_fp32,
                eps=self.norm.eps,
            )
        return self.mixer(hidden_states, inference_params=inference_params), residual


class VisionMamba(nn.Module):
    def __init__(self, img_size=32, patch_size=8, depth=2, embed_dim=24, d_state=8, num_classes=10, rms_norm=True,
                 fused_add_norm=True, bimamba_type="v2", if_divide_out=True, init_layer_scale=None):  # fmt: skip
        super().__init__()
        self.img_size, self.fused_add_norm, self.residual_in_fp32 = img_size, fused_add_norm, True
        self.patch_embed = nn.Conv2d(3, embed_dim, patch_size, patch_size)
        num_patches = (img_size // patch_size) ** 2
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim) * 0.02)
        self.pos_embed = nn.Parameter(grid(torch.arange(num_patches + 1), embed_dim)[None])
        norm_cls = partial(nn.LayerNorm if not rms_norm else RMSNorm, eps=1e-5)
        self.layers = nn.ModuleList()
        for i in range(depth):
            mixer_cls = partial(Mamba, d_state=d_state, layer_idx=i, bimamba_type=bimamba_type,
                                if_divide_out=if_divide_out, init_layer_scale=init_layer_scale)  # fmt: skip
            self.layers.append(Block(embed_dim, mixer_cls, norm_cls, fused_add_norm, True))
        self.norm_f = norm_cls(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward_features(self, x, inference_params=None):
        B, C, H, W = x.shape
        assert self.img_size == H and self.img_size == W, (
            f"Input image size ({H}*{W}) doesn't match model ({self.img_size}*{self.img_size})."
        )
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        B, M, _ = x.shape
        token_position = M // 2
        cls_token = self.cls_token.expand(B, -1, -1)
        x = torch.cat((x[:, :token_position, :], cls_token, x[:, token_position:, :]), dim=1)
        x = x + self.pos_embed
        residual, hidden_states = None, x
        for layer in self.layers:
            hidden_states, residual = layer(hidden_states, residual, inference_params=inference_params)
        if not self.fused_add_norm:
            residual = hidden_states if residual is None else residual + hidden_states
            hidden_states = self.norm_f(residual.to(dtype=self.norm_f.weight.dtype))
        else:
            fused_add_norm_fn = rms_norm_fn if isinstance(self.norm_f, RMSNorm) else layer_norm_fn
            hidden_states = fused_add_norm_fn(hidden_states, self.norm_f.weight, self.norm_f.bias, eps=self.norm_f.eps,
                                              residual=residual, prenorm=False, residual_in_fp32=True)  # fmt: skip
        return hidden_states[:, token_position, :]

    def forward(self, x, return_features=False):
        x = self.forward_features(x)
        return x if return_features else self.head(x)


def vim_tiny(pretrained=False, **kwargs):
    return VisionMamba(**kwargs)
