"""Attention over a packed batch on a CPU, each sequence against its own keys.

A continuous batch is one long row in which many sequences lie end to end. On a GPU flash
attention's kernels know where each begins; the fall-back, one dense product under a mask,
computes every query against every other sequence's keys only to hide them. Here each sequence
meets its own keys alone: the same result, with work and memory linear in the batch. What a step
has in common for all layers is planned once (`packing`); the cache is written and read here, not
by transformers' own `cache.update`, which copies what nobody needs.

It is registered under NAME through transformers' public AttentionInterface.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from worker.engine.transformers.packing import Group, Plan, plan

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
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What `sdpa` computes for a paged cache.

    `query` is `[1, heads, queries, size]`; `key` and `value` are the new ones,
    `[1, key heads, queries, size]`; the result is `[1, queries, heads, size]`.
    """
    if attention_mask is not None or kwargs.get("position_bias") is not None:
        raise ValueError(f"{NAME} takes neither a mask nor a position bias")
    allocator = cache.layer_to_allocator[module.layer_idx]
    step = _planned(allocator, query.dtype, kwargs)
    cached = allocator._kv_token_views[module.layer_idx]  # noqa: SLF001
    window = getattr(allocator, "sliding_window", None)
    output = torch.empty(query.shape[2], query.shape[1], value.shape[3], dtype=query.dtype)
    # A window's new tokens may take the place of old ones that the same prompt still looks at.
    for prompt in step.prompts:
        old = None if prompt.past is None else [part[prompt.past] for part in cached]
        part = slice(prompt.first, prompt.last)
        keys, values = _whole(key[0, :, part], value[0, :, part], old)
        result = attend(query[:, :, part], keys, values, scaling, window)
        output[part] = result[0].transpose(0, 1)
    write = kwargs["write_index"][allocator.index]
    for part, new in zip(cached, (key, value), strict=True):
        part.index_copy_(0, write, new[0].transpose(0, 1))
    for group in step.groups:
        output[group.places] = _attend_together(query, cached, group, scaling)
    return output.unsqueeze(0), None


def _planned(allocator: Any, dtype: torch.dtype, kwargs: dict[str, Any]) -> Plan:
    """The plan of this step: the first layer of each kind makes it."""
    read = kwargs["read_index"][allocator.index]
    known: tuple[Tensor, Plan] | None = getattr(allocator, "promptmill_plan", None)
    if known is None or known[0] is not read:  # every step has tensors of its own
        queries = kwargs["cu_seq_lens_q"].tolist()
        keys = kwargs["cu_seq_lens_k"][allocator.layer_type].tolist()
        write = kwargs["write_index"][allocator.index]
        known = allocator.promptmill_plan = (read, plan(queries, keys, read, write, dtype))
    return known[1]


def _whole(key: Tensor, value: Tensor, old: list[Tensor] | None) -> tuple[Tensor, Tensor]:
    """A prompt's keys and values, `[1, key heads, keys, size]`, with those from before."""
    new = (key, value)
    if old is None:
        return key.unsqueeze(0), value.unsqueeze(0)
    keys, values = (
        torch.cat((before.transpose(0, 1), now), dim=1).unsqueeze(0)
        for before, now in zip(old, new, strict=True)
    )
    return keys, values


def _attend_together(
    query: Tensor, cached: tuple[Tensor, Tensor], group: Group, scaling: float | None
) -> Tensor:
    """One new token of each: `[sequences, heads, size]`."""
    key, value = (
        part.index_select(0, group.tokens)
        .view(group.sequences, -1, *part.shape[1:])
        .transpose(1, 2)
        for part in cached
    )
    heads, shared = key.shape[1], query.shape[1] // key.shape[1]
    ours = query[0].index_select(1, group.places).transpose(0, 1)
    # Query heads that share a key head lie one below the other, as if they were queries.
    packed = ours.reshape(group.sequences, heads, shared, query.shape[3])
    output = scaled_dot_product_attention(packed, key, value, attn_mask=group.mask, scale=scaling)
    return output.reshape(group.sequences, query.shape[1], value.shape[3])


def visible(
    queries: int, keys: int, window: int | None, device: torch.device | None = None
) -> Tensor:
    """Which keys the last `queries` of `keys` positions see: `[queries, keys]` bool.

    Themselves and those before, under a sliding window the last `window` of these.
    """
    place = torch.arange(keys - queries, keys, device=device).unsqueeze(1)
    other = torch.arange(keys, device=device)
    seen = other <= place
    return seen if window is None else seen & (other > place - window)


def attend(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    """One prompt: `[1, heads, queries, size]`; `key` and `value` have its past before it."""
    queries, keys = query.shape[2], key.shape[2]
    fresh = queries == keys and (window is None or keys <= window)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if fresh else visible(queries, keys, window, query.device),
        is_causal=fresh,
        scale=scaling,
        enable_gqa=query.shape[1] > key.shape[1],
    )


AttentionInterface.register(NAME, packed_attention)
