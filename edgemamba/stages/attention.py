"""Attention in operators that both formats have."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from edgemamba.errors import Unsupported


def take_apart(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``scaled_dot_product_attention`` as products and a softmax; a row that is masked out entirely gives NaN.

    torch's own decomposition looks for such rows, with comparisons that no runtime has fast.
    """
    del dropout_p
    if enable_gqa:
        raise Unsupported("attention with grouped queries has no lowering", hint="repeat keys and values")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    weights: Any = torch.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        seen = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        weights = torch.where(seen, weights, float("-inf"))
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        weights = torch.where(attn_mask, weights, float("-inf")) if masked else weights + attn_mask
    return torch.matmul(torch.softmax(weights, -1), value)
