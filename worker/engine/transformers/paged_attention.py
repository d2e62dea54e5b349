"""Attention over a paged cache on a GPU.

A step holds sequences with one new token each, and prompts. The former are read where they lie in
the pool (`decode_kernel`); prompts go through PyTorch's own variable-length flash attention, or,
for what that does not take, one by one. Where tokens go and come from is planned once a step, for
all layers of one kind (`_Plan`), from the table of each sequence's pages: transformers' own lists
of every single token to be read are not needed.

It is registered under NAME through transformers' public AttentionInterface.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from worker.engine.transformers.attention import attend
from worker.engine.transformers.steps import Prompt, Step

NAME = "promptmill_paged"

#: Heads up to this size, in multiples of 8 and 16-bit types, are flash attention's.
_FLASH_SIZE = 256
#: From PyTorch 2.12 on key heads that are shared must be announced.
_GROUPED = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def usable(device: torch.device) -> bool:
    """Whether this machine has what it takes: an NVIDIA GPU from Ampere on, and Triton."""
    return (
        device.type == "cuda"
        and torch.version.cuda is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and find_spec("triton") is not None
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """What the prompts of a step attend to, in layers of one kind."""

    #: Where the pool holds what is read again: `[old]`; None: no prompt has a past.
    old: Tensor | None
    #: Puts old tokens, then new ones, into the order of the sequences: `[old + new]`.
    order: Tensor | None
    #: Cumulated numbers of queries and keys, on the host and on the device.
    queries: Sequence[int]
    keys: Sequence[int]
    queries_on_device: Tensor
    keys_on_device: Tensor


@dataclass(frozen=True, slots=True)
class _Plan:
    """A step, in layers of one kind."""

    #: Where each new token goes: `[tokens]`.
    slots: Tensor
    #: Pages of the ongoing sequences: `[ongoing, pages]` int32.
    table: Tensor
    #: Tokens that each of them reads, the new one included: `[ongoing]` int32.
    lengths: Tensor
    prompts: _Read | None


def paged_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    cache: Any,
    block_table: Tensor,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What `sdpa` computes for a paged cache.

    `query` is `[1, heads, tokens, size]`; `key` and `value` are the new ones,
    `[1, key heads, tokens, size]`; the result is `[1, tokens, heads, size]`. `block_table` is
    `[kinds of attention, sequences, pages]`; `cache.promptmill_step` says what the step holds.
    """
    if attention_mask is not None or kwargs.get("position_bias") is not None:
        raise ValueError(f"{NAME} takes neither a mask nor a position bias")
    step: Step = cache.promptmill_step
    allocator = cache.layer_to_allocator[module.layer_idx]
    if module.layer_idx == allocator.layer_indices[0]:
        allocator.promptmill_plan = _planned(step, block_table[allocator.index], allocator)
    plan: _Plan = allocator.promptmill_plan
    keys, values = allocator._kv_token_views[module.layer_idx]  # noqa: SLF001
    queries, new_keys, new_values = (part[0].transpose(0, 1) for part in (query, key, value))
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    parts: list[Tensor] = []
    read = plan.prompts
    # A window's new tokens may take the place of old ones that the same prompt still looks at.
    old = None if read is None or read.old is None else (keys[read.old], values[read.old])
    keys.index_copy_(0, plan.slots, new_keys)
    values.index_copy_(0, plan.slots, new_values)
    if step.ongoing:
        # Imported here: it needs Triton, which a CPU's PyTorch does not bring along.
        from worker.engine.transformers.decode_kernel import decode

        ours = queries[: step.ongoing].contiguous()
        page = allocator.tokens_per_page
        parts.append(decode(ours, keys, values, plan.table, plan.lengths, scale, page))
    if read is not None:
        first = step.ongoing
        prompt_keys, prompt_values = new_keys[first:], new_values[first:]
        if old is not None:
            prompt_keys = torch.cat((old[0], prompt_keys))[read.order]
            prompt_values = torch.cat((old[1], prompt_values))[read.order]
        window = getattr(allocator, "sliding_window", None)
        parts.append(_prompts(queries[first:], prompt_keys, prompt_values, read, scale, window))
    return torch.cat(parts).unsqueeze(0), None


def _planned(step: Step, table: Tensor, allocator: Any) -> _Plan:
    """`table` is `[sequences, pages]` int32, -1 where there is no page."""
    window = getattr(allocator, "sliding_window", None)
    size = allocator.tokens_per_page
    positions = step.positions.long()
    pages, slots = _slots(table, step.sequences, positions, window, size)
    stored = pages >= 0
    if window is not None and any(prompt.new > window for prompt in step.prompts):
        last = torch.tensor([prompt.past + prompt.new for prompt in step.prompts])
        ends = last.repeat_interleave(torch.tensor([prompt.new for prompt in step.prompts]))
        stored[step.ongoing :] &= positions[step.ongoing :] >= ends.to(table.device) - window
    lengths = positions[: step.ongoing] + 1
    if window is not None:
        lengths = lengths.clamp(max=window)
    return _Plan(
        slots=slots.where(stored, allocator.write_trash_index),
        table=table[: step.ongoing],
        # Padding has no page and reads nothing.
        lengths=lengths.where(pages[: step.ongoing] >= 0, 0).int(),
        prompts=_read(step, table, window, size) if step.prompts else None,
    )


def _slots(
    table: Tensor, sequences: Tensor, positions: Tensor, window: int | None, size: int
) -> tuple[Tensor, Tensor]:
    """The page and the place in the pool of each token; a window's pages are a ring."""
    places = positions if window is None else positions % window
    pages = table[sequences, places // size].long()
    return pages, pages * size + places % size


def _read(step: Step, table: Tensor, window: int | None, size: int) -> _Read:
    kept = [_kept(prompt, window) for prompt in step.prompts]
    queries = list(accumulate((prompt.new for prompt in step.prompts), initial=0))
    keys = list(
        accumulate(
            (old + prompt.new for old, prompt in zip(kept, step.prompts, strict=True)), initial=0
        )
    )
    slots, order = None, None
    if any(kept):
        old, order = _order(step.prompts, kept)
        positions, sequences = (one.to(table.device) for one in old)
        slots = _slots(table, sequences + step.ongoing, positions, window, size)[1]
        order = order.to(table.device)
    return _Read(
        old=slots,
        order=order,
        queries=queries,
        keys=keys,
        queries_on_device=torch.tensor(queries, dtype=torch.int32, device=table.device),
        keys_on_device=torch.tensor(keys, dtype=torch.int32, device=table.device),
    )


def _kept(prompt: Prompt, window: int | None) -> int:
    """Old tokens that its new ones look at."""
    return prompt.past if window is None else min(prompt.past, window - 1)


def _order(prompts: Sequence[Prompt], kept: Sequence[int]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Positions and prompts of the old tokens, and where each key comes from.

    The last counts old tokens of all prompts first, then new ones.
    """
    positions, owners, order = [], [], []
    old, new = 0, sum(kept)
    for place, (prompt, count) in enumerate(zip(prompts, kept, strict=True)):
        positions.append(torch.arange(prompt.past - count, prompt.past))
        owners.append(torch.full((count,), place))
        order += [torch.arange(old, old + count), torch.arange(new, new + prompt.new)]
        old, new = old + count, new + prompt.new
    return (torch.cat(positions), torch.cat(owners)), torch.cat(order)


def _prompts(
    query: Tensor, key: Tensor, value: Tensor, read: _Read, scale: float, window: int | None
) -> Tensor:
    """All prompts of a step: `[tokens, heads, size]` each."""
    size = query.shape[2]
    if query.dtype.itemsize == 2 and size <= _FLASH_SIZE and size % 8 == 0:
        return _flash(query, key, value, read, scale, window)
    output = torch.empty_like(query)
    for (first, last), (start, end) in zip(
        pairwise(read.queries), pairwise(read.keys), strict=True
    ):
        asked, known, held = (
            part.transpose(0, 1).unsqueeze(0)
            for part in (query[first:last], key[start:end], value[start:end])
        )
        output[first:last] = attend(asked, known, held, scale, window)[0].transpose(0, 1)
    return output


def _flash(
    query: Tensor, key: Tensor, value: Tensor, read: _Read, scale: float, window: int | None
) -> Tensor:
    longest = [
        max(after - before for before, after in pairwise(bounds))
        for bounds in (read.queries, read.keys)
    ]
    flash: Any = varlen_attn
    output: Tensor = flash(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        read.queries_on_device,
        read.keys_on_device,
        *longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        **_GROUPED,
    )
    return output


AttentionInterface.register(NAME, paged_attention)
