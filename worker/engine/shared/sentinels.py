"""Texts that stand nowhere else: a place in a rendered chat is found by one of these. Pure."""

from __future__ import annotations

from collections.abc import Iterator

#: Characters of each.
LENGTH = 14


def sentinels(*texts: str) -> Iterator[str]:
    """Distinct texts that occur in none of these, without end.

    All have the same length, and none overlaps another or itself: the first and the last letter
    stand nowhere else in it. Letters and digits only, so that trimming, JSON and HTML leave them
    as they are.
    """
    number = 0
    while True:
        sentinel = f"q{number:0{LENGTH - 2}d}z"
        if not any(sentinel in text for text in texts):
            yield sentinel
        number += 1
