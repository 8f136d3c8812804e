"""The scans people write today, kept only to be measured against.

Glossary: G sequences, D channels (d_inner), N states (d_state), L tokens, K chunks of Q tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def chunked_doubling(dt: Tensor, x: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, chunk: int = 16) -> Tensor:
    """The usual portable form: all decays at once, doubling inside chunks, chunk states carried one by one.

    Args:
        dt: (G, D, L) step sizes. x: (G, D, L). A: (D, N). B, C: (G, N, L). D: (D).
        chunk: tokens a chunk.

    Returns:
        (G, D, L).
    """
    groups, channels, length = x.shape
    states = A.shape[1]
    pad = -length % chunk
    chunks = (length + pad) // chunk
    decay = torch.exp(dt.unsqueeze(2) * A.unsqueeze(-1))
    drive = (dt * x).unsqueeze(2) * B.unsqueeze(1)
    decay = functional.pad(decay, (0, pad), value=1.0).reshape(groups, channels, states, chunks, chunk)
    drive = functional.pad(drive, (0, pad)).reshape(groups, channels, states, chunks, chunk)
    shift = 1
    while shift < chunk:
        earlier = functional.pad(drive[..., :-shift], (shift, 0))
        earlier_decay = functional.pad(decay[..., :-shift], (shift, 0), value=1.0)
        drive = drive + decay * earlier
        decay = decay * earlier_decay
        shift *= 2
    state = torch.zeros_like(drive[..., 0, 0])
    outputs = []
    for k in range(chunks):
        inside = drive[..., k, :] + decay[..., k, :] * state.unsqueeze(-1)
        outputs.append(inside)
        state = inside[..., -1]
    hidden = torch.cat(outputs, -1)[..., :length]
    return (hidden * C.unsqueeze(1)).sum(2) + D.unsqueeze(-1) * x


def sequential(dt: Tensor, x: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The recurrence as it is written down: one Python step a token. Shapes as ``chunked_doubling``."""
    state = x.new_zeros(x.shape[0], x.shape[1], A.shape[1])
    outputs = []
    drive = dt * x
    for t in range(x.shape[2]):
        state = torch.exp(dt[:, :, t, None] * A) * state + drive[:, :, t, None] * B[:, None, :, t]
        outputs.append((state * C[:, None, :, t]).sum(-1))
    return torch.stack(outputs, -1) + D.unsqueeze(-1) * x
