"""Stop strings: noticing one while tokens come in, and cutting the text where it begins.

The completion ends before the first stop string: the one that is complete first, character by
character; of those that are complete at the same character, the longest. That does not depend
on where the token boundaries lie.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

#: What a decoder puts for bytes that are not (yet) a character.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

#: Tokens after which bytes that still are no character never will be one: a character has at
#: most four bytes, a byte at most one token.
_MOST_PENDING = 8

#: Turns token ids into text, special tokens left out.
Decode = Callable[[Sequence[int]], str]


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

    It decodes a few tokens per call, however long the text is: those since the last complete
    character, after a few before them, as some tokens read differently at the start of a text
    (the method of Hugging Face's text-generation-inference, `decode_token`).
    """

    def __init__(self, decode: Decode, stops: Sequence[str]) -> None:
        self._decode = decode
        self._stops = stops
        self._longest = max(map(len, stops))
        self._context: list[int] = []
        self._context_text = ""
        self._pending: list[int] = []
        self._tail = ""

    def fork(self) -> StopDetector:
        """One that has had the same tokens, and goes its own way from here."""
        fork = copy.copy(self)
        fork._pending = list(self._pending)  # noqa: SLF001 - of its own class
        return fork

    def push(self, token_id: int) -> bool:
        """Take the next token; True once a stop string is complete."""
        self._pending.append(token_id)
        text = self._decode([*self._context, *self._pending])
        new = text[len(self._context_text) :]
        found = find_stop(self._tail + new.rstrip(_REPLACEMENT), self._stops) is not None
        if not new.endswith(_REPLACEMENT) or len(self._pending) > _MOST_PENDING:
            self._tail = (self._tail + new)[-self._longest :]
            self._context = [*self._context, *self._pending][-_MOST_PENDING:]
            self._context_text = self._decode(self._context)
            self._pending = []
        return found
