"""Stop strings: noticing one while tokens come in, and cutting the text where it begins.

The completion ends before the first stop string: the one that is complete first, character by
character; of those that are complete at the same character, the longest. That does not depend
on where the token boundaries lie.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from worker.engine.text_stream import REPLACEMENT, Decode, TextStream


def find_stop(text: str, stops: Sequence[str]) -> tuple[int, int] | None:
    """Where the first stop string begins and ends in `text`; None: it holds none."""
    found = [(start + len(stop), start) for stop in stops if (start := text.find(stop)) >= 0]
    if not found:
        return None
    end, start = min(found)
    return start, end


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first stop string."""
    found = find_stop(text, stops)
    return text if found is None else text[: found[0]]


class StopDetector:
    """Whether the text of one growing list of tokens holds a stop string.

    It decodes a few tokens per call, however long the text is.
    """

    def __init__(self, decode: Decode, stops: Sequence[str], context: Sequence[int] = ()) -> None:
        """`context`: the last tokens before the text, in which no stop string is looked for."""
        self._stops = stops
        self._longest = max(map(len, stops))
        self._stream = TextStream(decode, context)
        self._tail = ""

    def fork(self) -> StopDetector:
        """One that has had the same tokens, and goes its own way from here."""
        fork = copy.copy(self)
        fork._stream = self._stream.fork()  # noqa: SLF001 - of its own class
        return fork

    def push(self, token_id: int) -> bool:
        """Take the next token; True once a stop string is complete."""
        settled = self._stream.push(token_id)
        text = self._tail + settled
        pending = self._stream.pending_text.rstrip(REPLACEMENT)
        self._tail = text[-self._longest :]
        return find_stop(text + pending, self._stops) is not None
