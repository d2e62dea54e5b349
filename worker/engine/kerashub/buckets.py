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


def batch_rows(live: int) -> int:
    """Rows of a batch that starts with `live` samples."""
    return _power_of_two(live)


def rows_to_keep(done: Sequence[bool]) -> list[int] | None:
    """Which rows a batch goes on with; None: it stays as it is.

    Fewer rows cost another compilation, so it shrinks only to a quarter. Done rows fill it up.
    """
    live = [row for row, over in enumerate(done) if not over]
    fewer = batch_rows(max(1, len(live)))
    if fewer * 4 > len(done):
        return None
    others = [row for row, over in enumerate(done) if over]
    return [*live, *others][:fewer]


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _bounded(size: int, limit: int | None) -> int:
    return size if limit is None else min(size, limit)
