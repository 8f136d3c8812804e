"""State space duality: the scan of Mamba-2, whose rates are one number a head, as products of matrices.

Source: Dao and Gu, "Transformers are SSMs" (2024), sections 5 and 6: inside a chunk of tokens the scan is attention
with a mask of decays; between chunks only states are handed on. Glossary: b batch, l tokens, h heads of p channels, g
groups of heads that share B and C, n states, k chunks of q tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64


def ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``state = exp(dt A) state + dt B x``, ``y = C state``, of one type throughout.

    Args:
        x: (b, l, h, p).
        dt: (b, l, h), not negative.
        A: (h), negative.
        B: (b, l, g, n); C likewise; g divides h.
        initial: state before the first token (b, h, p, n); None is zero.

    Returns:
        y (b, l, h, p) and the state after the last token (b, h, p, n).
    """
    batch, length, heads, channels = x.shape
    size = min(CHUNK, length)
    over = -length % size
    count = (length + over) // size
    share = heads // B.shape[2]
    # Tokens that fill up the last chunk have dt = 0: they neither decay the state nor add to it.
    decay, fed = _chunks((dt * A)[..., None], over, size)[..., 0], _chunks(x * dt[..., None], over, size)
    keys, queries = _chunks(B, over, size), _chunks(C, over, size)
    kept = _decays(decay)
    seen = _spread(keys @ queries.transpose(-1, -2), share) * kept
    y = seen.transpose(-1, -2) @ fed
    keys, queries = _spread(keys, share), _spread(queries, share)
    states = (fed * kept[..., -1:]).transpose(-1, -2) @ keys
    if count == 1 and initial is None:
        return _joined(y, batch, length), states
    ends = decay.sum(-1).reshape(batch, count, heads).transpose(1, 2)
    handed_on = _decays(ends)
    left = handed_on.transpose(-1, -2) @ states.reshape(batch, count, heads, -1).transpose(1, 2)
    start = torch.zeros_like(left[:, :, :1])
    if initial is not None:
        start = initial.reshape(batch, heads, 1, -1)
        left = left + _since_start(ends, handed_on) * start
    entering = torch.cat([start, left[:, :, :-1]], 2)
    handed = entering.transpose(1, 2).reshape(batch * count, heads, channels, -1)
    y = y + _since_start(decay, kept) * (queries @ handed.transpose(-1, -2))
    return _joined(y, batch, length), left[:, :, -1].reshape(batch, heads, channels, -1)


def _chunks(x: Tensor, over: int, size: int) -> Tensor:
    """(b, l, h, c) -> (b k, h, q, c)."""
    _, _, heads, channels = x.shape
    x = F.pad(x, (0, 0, 0, 0, 0, over)) if over else x
    return x.reshape(-1, size, heads, channels).transpose(1, 2)


def _joined(y: Tensor, batch: int, length: int) -> Tensor:
    """(b k, h, q, p) -> (b, l, h, p)."""
    _, heads, _, channels = y.shape
    return y.transpose(1, 2).reshape(batch, -1, heads, channels)[:, :length]


def _spread(x: Tensor, share: int) -> Tensor:
    """What a group has, for each of its heads: (b k, g, r, c) -> (b k, h, r, c)."""
    if share == 1:
        return x
    return x[:, :, None].expand(-1, -1, share, -1, -1).flatten(1, 2)


def _decays(decay: Tensor) -> Tensor:
    """What is left at place i of what came in at j, (..., i) -> (..., j, i): ``exp(decay[j + 1] + ... + decay[i])``.

    Summed for every j on its own, since the difference of two long sums would have few digits left.
    """
    size = decay.shape[-1]
    ones = torch.ones(size, size, dtype=decay.dtype, device=decay.device)
    return torch.exp((decay[..., None, :] * ones.triu(1)).cumsum(-1)) * ones.triu()


def _since_start(decay: Tensor, kept: Tensor) -> Tensor:
    """What is left at place i of what was there before the first, (..., i) and its ``_decays`` -> (..., i, 1)."""
    return (torch.exp(decay[..., :1]) * kept[..., 0, :])[..., None]
