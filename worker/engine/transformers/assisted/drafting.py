"""Who proposes tokens: a small model, or the text itself.

A draft is made token by token, and each token is chosen as the sampler would choose it from the
drafter's own probabilities: under the same parameters, the same structure and the same random
number. So a draft model that is nearly as sure of the same tokens as the model is right at any
temperature, not at 0 alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from worker.engine.shared.continuation import Continuation
from worker.engine.shared.rows import NOT_FINITE, Row
from worker.engine.transformers import sampler
from worker.engine.transformers.assisted.cached import CachedModel
from worker.engine.transformers.assisted.lookup import Lookup

#: Tokens of a draft model's first draft, and of its longest: transformers' own habits.
FIRST, LONGEST = 5, 20
#: A greedy draft ends before a token that the draft model itself thinks less likely than this.
CONFIDENCE = 0.4

#: The next token of a draft, under the parameters that it would be sampled with; None: no more.
Propose = Callable[[Row], int | None]


class Drafter(Protocol):
    """Proposes tokens for one text after the other."""

    #: For whoever asks what made a text.
    name: str
    #: Tokens of a draft at most, ever.
    longest: int
    #: The model that it has, if any.
    models: Sequence[CachedModel]
    #: … where it has to read this text, too.
    model: CachedModel | None

    def begin(self, one: Continuation) -> None:
        """Turn to another text, of which `model`, if any, has read nothing so far."""
        ...

    def open(self, one: Continuation) -> Propose:
        """Begin a draft of what follows prompt and text."""
        ...

    def close(self, drafted: int, taken: int) -> None:
        """Hear how many tokens of the draft there were, and how many were right."""
        ...


class LookupDrafter:
    """What followed the same tokens before, in prompt or text."""

    def __init__(self, tokens: int) -> None:
        self.longest = tokens
        self.name = f"prompt lookup {tokens}"
        self.models: Sequence[CachedModel] = ()
        self.model: CachedModel | None = None
        self._lookup = Lookup()
        #: Tokens of the next draft, at most.
        self._length = tokens

    def begin(self, one: Continuation) -> None:
        self._length = self.longest
        self._lookup = Lookup()
        self._lookup.read(one.prompt_ids)

    def open(self, one: Continuation) -> Propose:
        self._lookup.read(one.token_ids[len(self._lookup) - len(one.prompt_ids) :])
        following = iter(self._lookup.following(self._length))
        return lambda _: next(following, None)

    def close(self, drafted: int, taken: int) -> None:
        """To look up too many costs nothing, but the model reads them all."""
        if drafted:
            self._length = min(self.longest, 2 * taken + 2)


class ModelDrafter:
    """What a small model of the same vocabulary would say."""

    def __init__(
        self, name: str, model: CachedModel, vocabulary: int, context: int | None, fixed: int | None
    ) -> None:
        """`vocabulary`: of the model that is assisted. `context`: tokens that the small one takes.

        `fixed`: tokens of each draft at most; None: as many as have been right of late.
        """
        tokens = "" if fixed is None else f", {fixed} tokens"
        self.name = f"draft model {name}{tokens}"
        self.longest = fixed or LONGEST
        self.models: Sequence[CachedModel] = (model,)
        self.model: CachedModel | None = model
        self._model = model
        self._vocabulary = min(vocabulary, model.vocabulary)
        self._context = context
        self._fixed = fixed
        #: Tokens of the next draft, at most.
        self._length = fixed or FIRST

    def begin(self, one: Continuation) -> None:
        reads = self._takes(one.prompt_ids) and self._fits(len(one.prompt_ids))
        self.model = self._model if reads else None

    def open(self, one: Continuation) -> Propose:
        model, text = self._model, [*one.prompt_ids, *one.token_ids]
        if self.model is None:
            return lambda _: None
        # What it read of the last draft and was wrong; of what was right, its last token is new.
        model.drop(max(0, model.length - (len(text) - 1)))
        unread, left = text[model.length :], self._length

        def propose(row: Row) -> int | None:
            nonlocal unread, left
            if not left or not self._takes(unread) or not self._fits(model.length + len(unread)):
                return None
            token = self._next(unread, row)
            unread, left = [token], left - 1
            return None if token == NOT_FINITE else token

        return propose

    def close(self, drafted: int, taken: int) -> None:
        """transformers' heuristic: two more after a draft that was right, else one less."""
        if self._fixed is None and drafted:
            longer = self._length + 2 if taken == drafted else self._length - 1
            self._length = min(self.longest, max(1, longer))

    def _next(self, unread: Sequence[int], row: Row) -> int:
        logits = self._model.read(unread, 1)[:, : self._vocabulary]
        token = int(sampler.choose(logits, [row]))
        if token == NOT_FINITE or row.temperature > 0 or row.allowed is not None:
            return token
        sure = torch.log_softmax(logits[0], dim=0)[token].exp()
        return token if float(sure) >= CONFIDENCE else NOT_FINITE

    def _takes(self, token_ids: Sequence[int]) -> bool:
        """Whether it knows them all: of a padded vocabulary the model may choose any."""
        known = min(self._model.readable, self._vocabulary)
        return all(0 <= token < known for token in token_ids)

    def _fits(self, length: int) -> bool:
        return self._context is None or length <= self._context
