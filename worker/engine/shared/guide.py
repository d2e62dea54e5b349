"""Structured output: which tokens may come next, by llguidance.

A guide goes with one sample. Before each token the guides of a batch say together, in parallel,
what is allowed; the sampler sees only that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLTokenizer
from llguidance.numpy import fill_next_token_bitmask_par
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from db.structure import Structure, compiled


class Guide:
    """What one sample may still say."""

    def __init__(self, matcher: LLMatcher) -> None:
        self.matcher = matcher
        #: A bit a token, of the next token: `[vocabulary / 32]` int32.
        self.allowed: NDArray[np.int32] | None = None
        #: The token by which the model thinks first, at the very beginning; None: none is there.
        self.thinks_with: int | None = None

    @property
    def ended(self) -> bool:
        """Nothing may follow."""
        return bool(self.matcher.is_stopped())

    @property
    def error(self) -> str:
        """Why it can't go on, as of a grammar that grew too complex; empty: it can."""
        return str(self.matcher.get_error())

    def let(self, token_id: int) -> None:
        """Let this token come next, too, with which the model would begin to think.

        Where the structure has it already, it stays the structure's.
        """
        allowed = self.allowed
        if allowed is None or token_id // 32 >= len(allowed):
            return
        if allowed[token_id // 32] & _bit(token_id):
            return
        allowed[token_id // 32] |= _bit(token_id)
        self.thinks_with = token_id

    def accept(self, token_id: int) -> None:
        self.matcher.consume_token(token_id)

    def copy(self) -> Guide:
        """One of the same grammar, at its beginning."""
        matcher = self.matcher.deep_copy()
        matcher.reset()
        return Guide(matcher)

    def fork(self) -> Guide:
        """One of the same grammar, at the same place."""
        return Guide(self.matcher.deep_copy())

    def allows(self, token_id: int) -> bool:
        """Whether the last `look_ahead` lets this token come next."""
        if self.allowed is None:
            return True
        return bool(self.allowed[token_id // 32] >> (token_id % 32) & 1)


class Guides:
    """Makes guides for one model."""

    def __init__(self, tokenizer: Any, vocabulary: int, end_ids: Iterable[int]) -> None:
        """`vocabulary` is that of the logits, padding included. Reads nothing yet."""
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._end_ids = sorted(end_ids)
        self._lock = Lock()
        self._known: LLTokenizer | None = None

    def guide(self, wanted: Structure) -> Guide:
        """Raises ValueError with the reason if this model can't follow it."""
        return self.guide_along(compiled(wanted))

    def guide_along(self, grammar: str) -> Guide:
        """The same for a grammar that llguidance can read."""
        matcher = LLMatcher(self._wrapped(), grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(" ".join(matcher.get_error().split()))
        return Guide(matcher)

    def _wrapped(self) -> LLTokenizer:
        """The tokenizer as llguidance knows it: a second's work for a large one, done once."""
        with self._lock:
            if self._known is None:
                self._known = self._read()
            return self._known

    def _read(self) -> LLTokenizer:
        if not isinstance(self._tokenizer, PreTrainedTokenizerFast):
            raise ValueError("structured output needs a model with a fast tokenizer")
        from llguidance.hf import from_tokenizer

        return from_tokenizer(
            self._tokenizer, n_vocab=self._vocabulary, eos_token=self._end_ids or None
        )


@lru_cache(maxsize=64)
def all_but(token_ids: frozenset[int], vocabulary: int) -> NDArray[np.int32]:
    """All tokens but these, as a guide says what is allowed: `[vocabulary / 32]` int32."""
    bits = np.full(-(-vocabulary // 32), -1, dtype=np.int32)
    for token_id in token_ids:
        if token_id >= vocabulary:  # of the tokenizer alone
            continue
        bits[token_id // 32] &= ~_bit(token_id)
    bits.flags.writeable = False
    return bits


def only(token_id: int, vocabulary: int) -> NDArray[np.int32]:
    """This token and no other, in the same way."""
    bits = np.zeros(-(-vocabulary // 32), dtype=np.int32)
    bits[token_id // 32] = _bit(token_id)
    return bits


def _bit(token_id: int) -> np.int32:
    return np.uint32(1 << token_id % 32).astype(np.int32)


_executor = LLExecutor()


def look_ahead(guides: Sequence[Guide], vocabulary: int) -> None:
    """Fill in what each of them allows next; `vocabulary` is that of the logits."""
    if not guides:
        return
    masks = np.zeros((len(guides), -(-vocabulary // 32)), dtype=np.int32)
    pairs = [(guide.matcher, place) for place, guide in enumerate(guides)]
    fill_next_token_bitmask_par(_executor, pairs, masks)
    for guide, mask in zip(guides, masks, strict=True):
        guide.allowed = mask
