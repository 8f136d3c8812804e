"""Networks with fresh weights whose normalisation is not trivial."""

from __future__ import annotations

import torch

from edgemamba.models import Network, build


def fresh(name: str) -> Network:
    """The registered network in evaluation mode, seeded, its running statistics other than 0 and 1."""
    torch.manual_seed(0)
    model = build(name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return model
