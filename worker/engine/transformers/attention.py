"""Attention over a packed batch on a CPU, one sequence at a time.

A continuous batch is one long row in which many sequences lie end to end. On a GPU flash
attention's kernels know where each begins; the fall-back, one dense product under a mask,
computes every query against every other sequence's keys only to hide them. Here each sequence
meets its own keys alone: the same result, with work and memory linear in the batch, and no mask
but for a prompt that is read in pieces.

It is registered under NAME through transformers' public AttentionInterface.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "promptmill_packed"


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    cache: Any,
    cu_seq_lens_q: Tensor,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What `sdpa` computes for a paged cache.

    `query` is `[1, heads, queries, size]`; `key` and `value` are the new ones,
    `[1, key heads, queries, size]`; the result is `[1, queries, heads, size]`.
    """
    if attention_mask is not None or kwargs.get("position_bias") is not None:
        raise ValueError(f"{NAME} takes neither a mask nor a position bias")
    layer = module.layer_idx
    key, value = cache.update(key_states=key, value_states=value, layer_idx=layer, kwargs=kwargs)
    window = getattr(cache.layer_to_allocator[layer], "sliding_window", None)
    outputs = [
        _attend(query[:, :, q0:q1], key[:, :, k0:k1], value[:, :, k0:k1], scaling, window)
        for (q0, q1), (k0, k1) in zip(
            pairwise(cu_seq_lens_q.tolist()),
            pairwise(kwargs["cu_seq_lens_k"].tolist()),
            strict=True,
        )
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def visible(queries: int, keys: int, window: int | None) -> Tensor:
    """Which keys the last `queries` of `keys` positions see: `[queries, keys]` bool.

    Themselves and those before, under a sliding window the last `window` of these.
    """
    place = torch.arange(keys - queries, keys).unsqueeze(1)
    other = torch.arange(keys)
    seen = other <= place
    return seen if window is None else seen & (other > place - window)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    """One sequence: `[1, heads, queries, size]`."""
    queries, keys = query.shape[2], key.shape[2]
    shared = query.shape[1] // key.shape[1]
    if queries == 1:  # the cache hands over only what the window lets it see
        packed = query.reshape(1, key.shape[1], shared, query.shape[3])
        output = scaled_dot_product_attention(packed, key, value, scale=scaling)
        return output.reshape(1, query.shape[1], 1, value.shape[3])
    fresh = queries == keys and (window is None or keys <= window)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if fresh else visible(queries, keys, window),
        is_causal=fresh,
        scale=scaling,
        enable_gqa=shared > 1,
    )


AttentionInterface.register(NAME, packed_attention)
