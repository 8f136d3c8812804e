"""Vision Mamba classifiers: image patches as tokens, each block a state space that reads them in both directions.

Glossary: d_model D, d_inner 2D, d_state N = 16, dt_rank ceil(D / 16), L tokens.

Source: Zhu et al., "Vision Mamba" (2024), and its released code, for ``Vim``; Crews and Whalen, "Mamba vs. else", for
the block with a 2-D convolution, ``Vim2d``.
"""

from __future__ import annotations

import abc
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.base import ClassificationModel, RandomModule
from edgemamba.ssm import EXPORT_FORMS, Form, FormModule, SelectiveSSM

RMS_EPS = 1e-5
# About those of a channel of natural images in [0, 1].
MEAN, STD = 0.5, 0.25


class _VimBase(ClassificationModel):
    """Patch embedding, blocks on a residual stream, RMSNorm, head; what differs is the mixer and what the head reads.

    Args:
        d_model: width of the residual stream.
        depth: blocks.
        patch: side of a patch, pixels.
        classes: outputs.
        size: height and width of the image, pixels.
        extra_tokens: tokens beside the patches.
        drop_path: chance that training skips the last block; falls linearly to 0 at the first.
        in_channels: channels of the image.
    """

    def __init__(
        self,
        d_model: int,
        depth: int,
        patch: int,
        *,
        classes: int,
        size: int,
        extra_tokens: int,
        drop_path: float,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.classes, self.side = classes, size // patch
        self.pos_embed = nn.Parameter(torch.empty(1, self.side**2 + extra_tokens, d_model))
        self.patch = PatchEmbedding(in_channels, d_model, patch)
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        self.layers = nn.ModuleList(_Block(d_model, self.mixer(d_model), rate) for rate in rates)
        self.norm_f = RMSNorm(d_model)
        self.head = nn.Linear(d_model, classes)
        self._initialise(depth)

    @abc.abstractmethod
    def mixer(self, d_model: int) -> _Mixer:
        """Tokens (B, L, D) -> (B, L, D)."""

    def tokens(self, patches: Tensor) -> Tensor:
        """What goes into the first block, from patches (B, M, D) row by row."""
        return patches + self.pos_embed

    @abc.abstractmethod
    def pooled(self, tokens: Tensor) -> Tensor:
        """What the head reads of the last tokens: (B, L, D) -> (B, D)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        x = self.tokens(self.patch(x).flatten(2).transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.pooled(x))

    @torch.no_grad()
    def _initialise(self, depth: int) -> None:
        """Where the released code departs from PyTorch's defaults."""
        std = math.sqrt(1 / self.patch.weight[0].numel()) / 0.87962566103423978
        nn.init.trunc_normal_(self.patch.weight, std=std, a=-2 * std, b=2 * std)
        assert self.patch.bias is not None
        nn.init.zeros_(self.patch.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        for module in self.modules():
            if isinstance(module, _Mixer):
                module.out_proj.weight.div_(math.sqrt(depth))


class Vim(_VimBase):
    """Bidirectional Vision Mamba with a class token in the middle, which the head reads; arguments of ``Vim2d``."""

    def __init__(
        self,
        d_model: int,
        depth: int,
        patch: int = 4,
        *,
        classes: int,
        size: int = 32,
        d_state: int = 16,
        drop_path: float = 0.0,
        in_channels: int = 3,
        init: Literal["mamba", "source"] = "mamba",
    ) -> None:
        del init
        self.d_state = d_state
        super().__init__(
            d_model,
            depth,
            patch,
            classes=classes,
            size=size,
            extra_tokens=1,
            drop_path=drop_path,
            in_channels=in_channels,
        )
        self.cls_token = nn.Parameter(torch.empty(1, 1, d_model))
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def mixer(self, d_model: int) -> _Mixer:
        """See ``_VimBase``."""
        return BidirectionalMixer(d_model, self.d_state)

    def tokens(self, patches: Tensor) -> Tensor:
        """See ``_VimBase``."""
        middle = self.side**2 // 2
        token = self.cls_token.expand(patches.shape[0], -1, -1)
        return super().tokens(torch.cat([patches[:, :middle], token, patches[:, middle:]], 1))

    def pooled(self, tokens: Tensor) -> Tensor:
        """See ``_VimBase``."""
        return self.norm_f(tokens[:, self.side**2 // 2])


class Vim2d(_VimBase):
    """Vision Mamba whose blocks convolve the grid of tokens in 2-D; the head reads the mean of all tokens.

    Args:
        d_model: width of the residual stream.
        depth: blocks.
        patch: side of a patch, pixels.
        bidirectional: scan the tokens backwards too.
        classes: outputs.
        size: height and width of the image, pixels.
        d_state: states a channel.
        drop_path: chance that training skips the last block; falls linearly to 0 at the first.
        in_channels: channels of the image.
        init: accepted for uniformity; both are the released code's.
    """

    def __init__(
        self,
        d_model: int,
        depth: int,
        patch: int = 4,
        *,
        bidirectional: bool = True,
        classes: int,
        size: int = 32,
        d_state: int = 16,
        drop_path: float = 0.0,
        in_channels: int = 3,
        init: Literal["mamba", "source"] = "mamba",
    ) -> None:
        del init
        self.d_state, self.bidirectional = d_state, bidirectional
        super().__init__(
            d_model,
            depth,
            patch,
            classes=classes,
            size=size,
            extra_tokens=0,
            drop_path=drop_path,
            in_channels=in_channels,
        )

    def mixer(self, d_model: int) -> _Mixer:
        """See ``_VimBase``."""
        return GridMixer(d_model, self.d_state, self.side, bidirectional=self.bidirectional)

    def pooled(self, tokens: Tensor) -> Tensor:
        """See ``_VimBase``."""
        return self.norm_f(tokens).mean(1)


class PatchEmbedding(nn.Conv2d, FormModule):
    """A convolution over patches of the centred image, (B, C, H, W) in [0, 1] -> (B, D, H/p, W/p).

    No norm follows it, so it is the image that has about mean 0 and variance 1 here: without, a short training of
    ``vim-2d-nano`` on the built-in figures learns half as much. The export forms have it in their weights.
    """

    _weight: Tensor
    _bias: Tensor

    def __init__(self, cin: int, cout: int, patch: int) -> None:
        super().__init__(cin, cout, patch, patch)
        self.register_buffer("_weight", torch.empty(0), persistent=False)
        self.register_buffer("_bias", torch.empty(0), persistent=False)

    def use(self, form: Form) -> None:
        """Switch form; the export forms take the image as it is."""
        super().use(form)
        assert self.bias is not None
        weight, bias = self.weight.detach(), self.bias.detach()
        folded = form in EXPORT_FORMS
        self._weight = weight / STD if folded else weight.new_empty(0)
        self._bias = bias - weight.sum((1, 2, 3)) * (MEAN / STD) if folded else weight.new_empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.form in EXPORT_FORMS:
            return F.conv2d(x, self._weight, self._bias, self.stride)
        return super().forward((x - MEAN) / STD)


class RMSNorm(nn.Module):
    """``x / rms(x) * weight`` along the last axis.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)."""
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + RMS_EPS) * self.weight


class _Block(RandomModule):
    """``x + mixer(norm(x))``; in training the mixer of a whole image is left out with chance ``drop``."""

    def __init__(self, d_model: int, mixer: _Mixer, drop: float) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model)
        self.mixer = mixer
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        y = self.mixer(self.norm(x))
        if self.training and self.drop:
            kept = torch.rand(x.shape[0], 1, 1, device=x.device, generator=self.generator) >= self.drop
            y = y * (kept / (1 - self.drop))
        return x + y


class _Mixer(nn.Module, abc.ABC):
    """Projection to x and the gate z, state spaces over x, projection back: (B, L, D) -> (B, L, D)."""

    def __init__(self, d_model: int, d_state: int) -> None:
        super().__init__()
        self.d_inner = 2 * d_model
        self.dt_rank = math.ceil(d_model / 16)
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        self.ssm = SelectiveSSM(self.d_inner, d_state, self.dt_rank)

    @abc.abstractmethod
    def mixed(self, x: Tensor) -> Tensor:
        """Convolutions and state spaces: (B, d_inner, L) -> (B, d_inner, L)."""

    def forward(self, h: Tensor) -> Tensor:
        """See the class."""
        x, z = self.in_proj(h).split(self.d_inner, -1)
        # Both directions have the same gate.
        return self.out_proj(self.mixed(x.transpose(1, 2)).transpose(1, 2) * F.silu(z))


class BidirectionalMixer(_Mixer):
    """Two whole Mamba cores, one on the reversed tokens; the mean of both. "v2" of the released code."""

    def __init__(self, d_model: int, d_state: int) -> None:
        super().__init__(d_model, d_state)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, 4, groups=self.d_inner)
        self.conv1d_b = nn.Conv1d(self.d_inner, self.d_inner, 4, groups=self.d_inner)
        self.ssm_b = SelectiveSSM(self.d_inner, d_state, self.dt_rank)

    def mixed(self, x: Tensor) -> Tensor:
        """See ``_Mixer``."""
        y = self.ssm(F.silu(self.conv1d(F.pad(x, (3, 0)))))
        back = self.ssm_b(F.silu(self.conv1d_b(F.pad(x.flip(-1), (3, 0)))))
        return (y + back.flip(-1)) * 0.5


class GridMixer(_Mixer):
    """A 3x3 convolution of the token grid, then one state space, or the mean of two in opposite directions."""

    def __init__(self, d_model: int, d_state: int, side: int, *, bidirectional: bool) -> None:
        super().__init__(d_model, d_state)
        self.side = side
        self.conv2d = nn.Conv2d(self.d_inner, self.d_inner, 3, padding=1, groups=self.d_inner)
        self.ssm_b = SelectiveSSM(self.d_inner, d_state, self.dt_rank) if bidirectional else None

    def mixed(self, x: Tensor) -> Tensor:
        """See ``_Mixer``."""
        batch, channels, length = (int(n) for n in x.shape)
        u = F.silu(self.conv2d(x.reshape(batch, channels, self.side, self.side))).reshape(batch, channels, length)
        y = self.ssm(u)
        return y if self.ssm_b is None else (y + self.ssm_b(u.flip(-1)).flip(-1)) * 0.5
