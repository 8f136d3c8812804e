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
    dt_, x_, B_, C_ = (functional.pad(t, (0, pad)) for t in (dt, x, B, C))
    decay = torch.exp(dt_.view(groups, channels, 1, chunks, chunk) * A.view(1, channels, states, 1, 1))
    drive = (dt_ * x_).view(groups, channels, 1, chunks, chunk) * B_.view(groups, 1, states, chunks, chunk)
    shift = 1
    while shift < chunk:
        earlier = functional.pad(drive[..., :-shift], (shift, 0))
        earlier_decay = functional.pad(decay[..., :-shift], (shift, 0), value=1.0)
        drive = decay * earlier + drive
        decay = decay * earlier_decay
        shift *= 2
    state = x.new_zeros(groups, channels, states)
    starts = []
    for k in range(chunks):
        starts.append(state)
        state = decay[..., k, -1] * state + drive[..., k, -1]
    hidden = decay * torch.stack(starts, -1).unsqueeze(-1) + drive
    y = torch.einsum("gdnkq,gnkq->gdkq", hidden, C_.view(groups, states, chunks, chunk))
    return y.reshape(groups, channels, length + pad)[..., :length] + D.unsqueeze(-1) * x


def sequential(dt: Tensor, x: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The loop of the portable references: decays and inputs of all tokens first, then one Python step a token.

    Shapes as ``chunked_doubling``.
    """
    decay = torch.exp(torch.einsum("gdl,dn->gdln", dt, A))
    drive = torch.einsum("gdl,gnl,gdl->gdln", dt, B, x)
    state = x.new_zeros(x.shape[0], x.shape[1], A.shape[1])
    outputs = []
    for t in range(x.shape[2]):
        state = decay[:, :, t] * state + drive[:, :, t]
        outputs.append(torch.einsum("gdn,gn->gd", state, C[:, :, t]))
    return torch.stack(outputs, -1) + D.unsqueeze(-1) * x
