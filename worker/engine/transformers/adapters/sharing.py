"""Which sequences may share pages of the KV cache: those with the same tokens and adapter.

transformers tells pages by a digest of their tokens and of those before them. Keys and values
under an adapter are others than the plain model's, so the digests must differ from the first page
on: a sequence's first token is told together with its adapter.

Written against the same release of transformers as `paged`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from worker.engine.transformers.adapters.lora import Adapters

#: More tokens than any vocabulary has; a token is told in 31 bits and a sign.
_TOKENS = 2**20


def share_apart(processor: Any, adapters: Adapters) -> None:
    """Have the batch processor's cache tell the pages of one adapter from those of another."""
    cache, scheduler = processor.cache, processor.scheduler
    search, mark = cache.search_prefix_match, cache.mark_complete_blocks

    def number(state: Any) -> int:
        return adapters.number(state.continuation.params.adapter)

    def search_prefix_match(request_id: str, prompt_ids: Sequence[int]) -> int:
        state = scheduler.waiting_requests[request_id]
        return int(search(request_id, told(prompt_ids, number(state))))

    def mark_complete_blocks(state: Any, complete_blocks: dict[str, int]) -> None:
        seen = SimpleNamespace(
            request_id=state.request_id,
            status=state.status,
            initial_tokens=told(state.initial_tokens, number(state)),
            generated_tokens=state.generated_tokens,
        )
        mark(seen, complete_blocks)

    cache.search_prefix_match = search_prefix_match
    cache.mark_complete_blocks = mark_complete_blocks


def told(token_ids: Sequence[int], adapter: int) -> list[int]:
    """The tokens as pages are told by; `adapter` is -1 for none, then they stay as they are."""
    first, *rest = token_ids
    return [first - (adapter + 1) * _TOKENS, *rest]
