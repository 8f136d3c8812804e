"""A U-Mamba stage: residual convolutions with InstanceNorm, a Mamba layer over the flattened map; dicts of outputs."""

import torch
from mamba_ssm import Mamba
from torch import nn
from torch.cuda.amp import autocast


class MambaLayer(nn.Module):
    def __init__(self, dim, d_state=16, d_conv=4, expand=2, **kwargs):
        super().__init__()
        self.dim = dim
        self.norm = nn.LayerNorm(dim)
        self.mamba = Mamba(d_model=dim, d_state=d_state, d_conv=d_conv, expand=expand, **kwargs)

    @autocast(enabled=False)
    def forward(self, x):
        if x.dtype == torch.float16:
            x = x.type(torch.float32)
        B, C = x.shape[:2]
        assert self.dim == C
        n_tokens = x.shape[2:].numel()
        img_dims = x.shape[2:]
        x_flat = x.reshape(B, C, n_tokens).transpose(-1, -2)
        x_mamba = self.mamba(self.norm(x_flat))
        return x_mamba.transpose(-1, -2).reshape(B, C, *img_dims)


class BasicResBlock(nn.Module):
    def __init__(self, conv_op, input_channels, output_channels, norm_op, stride=1):
        super().__init__()
        self.conv1 = conv_op(input_channels, output_channels, 3, stride=stride, padding=1)
        self.norm1, self.act1 = norm_op(output_channels, eps=1e-5, affine=True), nn.LeakyReLU(inplace=True)
        self.conv2 = conv_op(output_channels, output_channels, 3, padding=1)
        self.norm2, self.act2 = norm_op(output_channels, eps=1e-5, affine=True), nn.LeakyReLU(inplace=True)
        self.conv3 = conv_op(input_channels, output_channels, 1, stride=stride)

    def forward(self, x):
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        y += self.conv3(x)
        return self.act2(y)


class UMambaEnc(nn.Module):
    def __init__(self, conv_op=nn.Conv2d, norm_op=nn.InstanceNorm2d, features=(8, 16), deep_supervision=True, **kwargs):
        super().__init__()
        self.stem = BasicResBlock(conv_op, 3, features[0], norm_op)
        self.down = BasicResBlock(conv_op, features[0], features[1], norm_op, stride=2)
        self.mamba = MambaLayer(features[1], **kwargs)
        self.up = nn.ConvTranspose2d(features[1], features[0], 2, 2)
        self.seg, self.low = nn.Conv2d(2 * features[0], 2, 1), nn.Conv2d(features[1], 2, 1)
        self.deep_supervision = deep_supervision

    def forward(self, x):
        a = self.stem(x)
        b = self.mamba(self.down(a))
        full = self.seg(torch.cat((self.up(b), a), 1))
        return {"full": full, "aux": [self.low(b)]} if self.deep_supervision else full
