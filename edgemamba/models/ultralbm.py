"""UltraLBM-UNet: the UltraLight VM-UNet with lighter bottleneck layers and one scalar for all skips.

Glossary: LMBP local multi-branch perception (convolutions only); GLMBP global-local multi-branch perception (Mamba
and a convolution); DSC depthwise separable convolution.

Source: Fan et al., "UltraLBM-UNet" (arXiv 2512.21584, 2025); names of the published code.
"""

from __future__ import annotations

import abc
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.blocks import Conv3x3, LayerNorm
from edgemamba.models.mirrored import MirroredNet
from edgemamba.ssm import Mamba

Flip = Literal["channel", "token"]

BRANCHES = 4


class UltraLBMUNet(MirroredNet):
    """Encoder of three convolutions and three multi-branch layers, scaled skips, mirrored decoder.

    Args:
        channels: channels per stage, six entries, each a multiple of four.
        flip: axis that the second pass of each Mamba reverses; "channel" as in the published code, "token" as the
            paper describes it.
        in_channels: channels of the image.
        init: as for ``ULVMUNet``.
    """

    def __init__(
        self,
        channels: list[int],
        *,
        flip: Flip = "channel",
        in_channels: int = 3,
        init: Literal["mamba", "source"] = "mamba",
    ) -> None:
        super().__init__(channels)
        c1, c2, c3, c4, c5, c6 = channels
        self.k = nn.Parameter(torch.ones(()))
        self.encoder1 = nn.Sequential(Conv3x3(in_channels, c1))
        self.encoder2 = nn.Sequential(Conv3x3(c1, c2))
        self.encoder3 = nn.Sequential(Conv3x3(c2, c3))
        self.encoder4 = nn.Sequential(LMBPLayer(c3, c4, 3))
        self.encoder5 = nn.Sequential(GLMBPLayer(c4, c5, 5, flip))
        self.encoder6 = nn.Sequential(GLMBPLayer(c5, c6, 7, flip))
        self.decoder1 = nn.Sequential(GLMBPLayer(c6, c5, 7, flip))
        self.decoder2 = nn.Sequential(GLMBPLayer(c5, c4, 5, flip))
        self.decoder3 = nn.Sequential(LMBPLayer(c4, c3, 3))
        self.decoder4 = nn.Sequential(Conv3x3(c3, c2))
        self.decoder5 = nn.Sequential(Conv3x3(c2, c1))
        self.add_norms_and_head(keep_mamba=init == "mamba")

    def skips(self, maps: list[Tensor]) -> list[Tensor]:
        """See ``MirroredNet``: all scaled by one learned number."""
        return [self.k * x for x in maps]


class DSC(nn.Module):
    """Depthwise K x K and pointwise convolution, each with batch norm and GELU: (B, c, H, W) -> same shape."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.bn_dw = nn.BatchNorm2d(channels)
        self.pw = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn_pw = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = F.gelu(self.bn_dw(self.dw(x)))
        return F.gelu(self.bn_pw(self.pw(x)))


class MultiBranchLayer(nn.Module, abc.ABC):
    """LayerNorm, four channel chunks that ``branches`` mixes, the same LayerNorm, projection.

    (B, cin, H, W) -> (B, cout, H, W). Tokens are pixels, row by row; every chunk also passes by, scaled.
    """

    skip_scale: nn.Parameter
    norm: LayerNorm
    proj: nn.Linear

    @abc.abstractmethod
    def branches(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """What is added to the scaled tokens (L, B, cin), same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, cin, height, width = (int(n) for n in x.shape)
        tokens = self.norm(x.reshape(batch, cin, height * width).permute(2, 0, 1))
        mixed = self.branches(tokens, height, width) + self.skip_scale * tokens
        return self.proj(self.norm(mixed)).permute(1, 2, 0).reshape(batch, -1, height, width)


class LMBPLayer(MultiBranchLayer):
    """Three chunks through a convolution of their own, the fourth unchanged."""

    def __init__(self, cin: int, cout: int, kernel: int) -> None:
        super().__init__()
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.norm = LayerNorm(cin)
        self.sep_conv1 = DSC(cin // BRANCHES, kernel)
        self.sep_conv2 = DSC(cin // BRANCHES, kernel)
        self.sep_conv3 = DSC(cin // BRANCHES, kernel)
        self.proj = nn.Linear(cin, cout)

    def branches(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """See ``MultiBranchLayer``."""
        c = int(tokens.shape[2]) // BRANCHES
        convolutions = (self.sep_conv1, self.sep_conv2, self.sep_conv3)
        parts = [_on_image(dsc, tokens[:, :, j * c : (j + 1) * c], height, width) for j, dsc in enumerate(convolutions)]
        return torch.cat([*parts, tokens[:, :, 3 * c :]], 2)


class GLMBPLayer(MultiBranchLayer):
    """Two chunks through one Mamba, as they are and flipped; the third through a convolution, the fourth unchanged."""

    def __init__(self, cin: int, cout: int, kernel: int, flip: Flip) -> None:
        super().__init__()
        self.flip_axis = -1 if flip == "channel" else 0
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.norm = LayerNorm(cin)
        self.mamba = Mamba(cin // BRANCHES)
        self.sep_conv = DSC(cin // BRANCHES, kernel)
        self.proj = nn.Linear(cin, cout)

    def branches(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """See ``MultiBranchLayer``."""
        length, batch, cin = (int(n) for n in tokens.shape)
        c = cin // BRANCHES
        pair = tokens[:, :, : 2 * c].reshape(length, batch * 2, c)
        # Both directions in one scan: they share the weights.
        mixed = self.mamba(torch.cat([pair, pair.flip(self.flip_axis)], 1).transpose(0, 1)).transpose(0, 1)
        mixed = mixed[:, : batch * 2] + mixed[:, batch * 2 :].flip(self.flip_axis)
        local = _on_image(self.sep_conv, tokens[:, :, 2 * c : 3 * c], height, width)
        return torch.cat([mixed.reshape(length, batch, 2 * c), local, tokens[:, :, 3 * c :]], 2)


def _on_image(dsc: DSC, tokens: Tensor, height: int, width: int) -> Tensor:
    """The convolution on tokens (L, B, c) as an image -> (L, B, c)."""
    length, batch, c = (int(n) for n in tokens.shape)
    y: Tensor = dsc(tokens.permute(1, 2, 0).reshape(batch, c, height, width))
    return y.reshape(batch, c, length).permute(2, 0, 1)
