"""Structured output: which tokens may come next, by llguidance.

A guide goes with one sample. Before each token the guides of a batch say together, in parallel,
what is allowed; the sampler sees only that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    @property
    def ended(self) -> bool:
        """Nothing may follow."""
        return bool(self.matcher.is_stopped())

    @property
    def error(self) -> str:
        """Why it can't go on, as of a grammar that grew too complex; empty: it can."""
        return str(self.matcher.get_error())

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
        matcher = LLMatcher(self._wrapped(), compiled(wanted), log_level=0)
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
