"""Drafts without a model: what followed the last few tokens where they stood before.

The method is "prompt lookup decoding" (Saxena, 2023), with an index in place of a search: a token
costs the same however long the text is. Where the text repeats itself within its last few tokens,
the draft goes on repeating.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Lengths of the runs of tokens that are looked up, the longest first.
RUNS = (4, 3, 2)


class Lookup:
    """Prompt and text of one sample, with the places of their runs of tokens."""

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        #: A run of tokens -> the place after its last occurrence, the text's end left out.
        self._after: dict[tuple[int, ...], int] = {}

    def __len__(self) -> int:
        return len(self._token_ids)

    def read(self, token_ids: Iterable[int]) -> None:
        """Take tokens that follow those read before."""
        ids, after = self._token_ids, self._after
        for token_id in token_ids:
            for run in RUNS:
                if len(ids) >= run:
                    after[tuple(ids[-run:])] = len(ids)
            ids.append(token_id)

    def following(self, count: int) -> list[int]:
        """The next `count` tokens if the text goes on as it did before; none if it never did."""
        ids = self._token_ids
        for run in RUNS:
            begin = self._after.get(tuple(ids[-run:])) if len(ids) >= run else None
            if begin is not None:
                period = len(ids) - begin
                return [ids[begin + place % period] for place in range(count)]
        return []
