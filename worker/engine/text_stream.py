"""Token ids to text behind other tokens, whole or token by token. Pure.

A decoder reads the start of a text in its own way: many strip the space before the first word,
or hide the mark that begins a piece within a word. So what was generated is decoded behind a few
of the tokens before it, and the text of these is taken off again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

#: What a decoder puts for bytes that are not (yet) a character.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

#: Tokens that one character can be spread over: it has at most four bytes.
_CHARACTER = 4

#: Tokens that are decoded anew with each one more, at most, and of those before them.
_MOST_PENDING, _CONTEXT = 16, 8

#: Turns token ids into text, special tokens left out.
Decode = Callable[[Sequence[int]], str]


def continued(decode: Decode, context: Sequence[int], token_ids: Sequence[int]) -> str:
    """The text that `token_ids` add behind `context`.

    A character that `context` begins and `token_ids` complete is part of it.
    """
    whole, before = whole_and_begun(decode, context)
    text = decode(whole) if whole else ""
    return added(text, decode([*whole, *before, *token_ids]))


class TextStream:
    """The text of a growing list of tokens, of which it decodes a few at a time.

    Settled text no longer changes. A character that is spread over several tokens is settled
    with its last one; bytes that never become a character, as the decoder shows them.
    """

    def __init__(self, decode: Decode, context: Sequence[int] = ()) -> None:
        """`context`: the last tokens before, whose text is not part of it."""
        self._decode = decode
        #: Tokens whose text is settled; they begin and end with whole characters.
        self._context, self._pending = whole_and_begun(decode, context)
        self._context_text = decode(self._context) if self._context else ""
        #: Pending tokens since the last one that completed a character.
        self._incomplete = 0
        #: What the tokens say whose text is not settled; it ends in an incomplete character.
        self.pending_text = ""

    def push(self, token_id: int) -> str:
        """Take the next token; the text that is settled by it."""
        self._pending.append(token_id)
        text = self._text(self._pending)
        if not text.endswith(REPLACEMENT):
            return self._settled(text)
        grown = len(text.rstrip(REPLACEMENT)) > len(self.pending_text.rstrip(REPLACEMENT))
        self._incomplete = 0 if grown else self._incomplete + 1
        if self._incomplete < _CHARACTER and len(self._pending) < _MOST_PENDING:
            self.pending_text = text
            return ""
        return self._given_up(text)

    def fork(self) -> TextStream:
        """One that has had the same tokens, and goes its own way from here."""
        fork = copy.copy(self)
        fork._pending = list(self._pending)  # noqa: SLF001 - of its own class
        return fork

    def _text(self, token_ids: Sequence[int]) -> str:
        return added(self._context_text, self._decode([*self._context, *token_ids]))

    def _settled(self, text: str) -> str:
        """All pending tokens, whose `text` is complete, become the context."""
        shown = self._decode(self._pending)
        if shown:
            self._context, self._context_text = self._pending, shown
        elif text or not self._context_text:
            # By themselves they show nothing, as a lone space: they need those before.
            self._context = [*self._context, *self._pending][-_CONTEXT:]
            self._context_text = self._decode(self._context)
        self._pending, self._incomplete, self.pending_text = [], 0, ""
        return text

    def _given_up(self, text: str) -> str:
        """Settle what no token can complete any more; it is no context for what follows."""
        self._pending, self._incomplete, self.pending_text = [], 0, ""
        return text


def whole_and_begun(decode: Decode, context: Sequence[int]) -> tuple[list[int], list[int]]:
    """The context without the tokens at its end that begin a character, and these."""
    whole = list(context)
    for end in range(len(context), max(-1, len(context) - _CHARACTER), -1):
        if not end or not decode(context[:end]).endswith(REPLACEMENT):
            return whole[:end], whole[end:]
    return whole, []


def added(before: str, whole: str) -> str:
    """What `whole` has behind `before`, or behind as much of it as the two share."""
    if whole.startswith(before):
        return whole[len(before) :]
    shared = 0
    while whole[shared : shared + 1] == before[shared]:
        shared += 1
    return whole[shared:]
