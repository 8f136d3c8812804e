"""MedMamba's SS-Conv-SSM block: half of the channels scanned, half convolved, shuffled together."""

import torch
from torch import nn
from vm_unet import SS2D, PatchEmbed2D, PatchMerging2D


def channel_shuffle(x, groups: int):
    batch_size, height, width, num_channels = x.size()
    x = x.view(batch_size, height, width, groups, num_channels // groups)
    return torch.transpose(x, 3, 4).contiguous().view(batch_size, height, width, -1)


class SS_Conv_SSM(nn.Module):
    def __init__(self, hidden_dim, d_state=4):
        super().__init__()
        half = hidden_dim // 2
        self.ln_1, self.self_attention = nn.LayerNorm(half), SS2D(half, d_state=d_state, version="v1")
        self.conv33conv33conv11 = nn.Sequential(
            nn.BatchNorm2d(half), nn.Conv2d(half, half, 3, padding=1), nn.BatchNorm2d(half), nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1), nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, half, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, input):
        left, right = input.chunk(2, dim=-1)
        right = self.self_attention(self.ln_1(right))
        left = self.conv33conv33conv11(left.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1).contiguous()
        output = channel_shuffle(torch.cat((left, right), dim=-1), groups=2)
        return output + input


class MedMamba(nn.Module):
    def __init__(self, num_classes=6, dims=[16, 32]):
        super().__init__()
        self.patch_embed = PatchEmbed2D(4, 3, dims[0])
        self.layers = nn.Sequential(SS_Conv_SSM(dims[0]), PatchMerging2D(dims[0]), SS_Conv_SSM(dims[1]))
        self.avgpool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(dims[-1], num_classes)

    def forward(self, x):
        x = self.layers(self.patch_embed(x)).permute(0, 3, 1, 2)
        return self.head(torch.flatten(self.avgpool(x), start_dim=1))
