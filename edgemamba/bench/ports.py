"""Our networks the way they are written elsewhere: plain modules around a portable scan, same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.models.ul_vm_unet import PVMLayer
from edgemamba.ssm import Mamba

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


class PortedMamba(nn.Module):
    """A Mamba block around ``scan``, tokens (B, L, d_model) -> (B, L, d_model)."""

    def __init__(self, source: Mamba, scan: Scan) -> None:
        super().__init__()
        self.block = source
        self.scan = scan

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        block = self.block
        x, z = block.in_proj(tokens).transpose(1, 2).chunk(2, 1)
        x = F.silu(block.conv1d(x)[..., : tokens.shape[1]])
        sizes = [block.dt_rank, block.d_state, block.d_state]
        r, B, C = block.x_proj(x.transpose(1, 2)).split(sizes, -1)
        dt = F.softplus(block.dt_proj(r)).transpose(1, 2)
        A = -torch.exp(block.A_log)
        y = self.scan(dt, x, A, B.transpose(1, 2), C.transpose(1, 2), block.D) * F.silu(z)
        return block.out_proj(y.transpose(1, 2))


class PortedPVM(nn.Module):
    """A PVM layer around ``scan``; the branches as one batch, or one call each as published."""

    def __init__(self, source: PVMLayer, scan: Scan, batched: bool) -> None:
        super().__init__()
        self.layer = source
        self.mamba = PortedMamba(source.mamba, scan)
        self.batched = batched

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H, W)."""
        layer = self.layer
        batch, _, height, width = x.shape
        tokens = layer.norm(x.flatten(2).transpose(1, 2))
        branches = tokens.chunk(layer.branches, -1)
        if self.batched:
            mixed = self.mamba(torch.cat(branches)).chunk(layer.branches)
        else:
            mixed = tuple(self.mamba(branch) for branch in branches)
        joined = torch.cat([m + layer.skip_scale * b for m, b in zip(mixed, branches, strict=True)], -1)
        return layer.proj(layer.norm(joined)).transpose(1, 2).reshape(batch, -1, height, width)


def port(model: nn.Module, scan: Scan, *, batched: bool) -> nn.Module:
    """A copy of ``model`` whose PVM layers are plain PyTorch around ``scan``."""
    ported = copy.deepcopy(model)
    for name, layer in list(ported.named_modules()):
        if isinstance(layer, PVMLayer):
            parent = ported.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], PortedPVM(layer, scan, batched))
    return ported
