"""Which shapes a batch is padded to, so that the framework compiles for few of them."""

from __future__ import annotations

from collections.abc import Sequence

#: Tokens of the shortest prompts' bucket, and of the smallest cache.
SMALLEST_PROMPT, SMALLEST_CACHE = 32, 128


def prompt_width(longest: int, limit: int | None) -> int:
    """Tokens that prompts of at most `longest` are padded to; `limit`: the model's own."""
    return _bounded(_power_of_two(max(longest, SMALLEST_PROMPT)), limit)


def cache_length(needed: int, limit: int | None) -> int:
    """Tokens that the cache of a batch holds, where it must hold `needed`."""
    return _bounded(_power_of_two(max(needed, SMALLEST_CACHE)), limit)


def batch_rows(live: int, capacity: int) -> int:
    """Rows of a batch of `live` samples: a power of four, or as many as there ever are."""
    rows = 1
    while rows < live:
        rows *= 4
    return max(live, min(rows, capacity))


def rows_to_keep(done: Sequence[bool]) -> list[int] | None:
    """Which rows a batch goes on with; None: it stays as it is. Done rows fill it up."""
    live = [row for row, over in enumerate(done) if not over]
    fewer = batch_rows(max(1, len(live)), len(done))
    if fewer == len(done):
        return None
    others = [row for row, over in enumerate(done) if over]
    return [*live, *others][:fewer]


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _bounded(size: int, limit: int | None) -> int:
    return size if limit is None else min(size, limit)
