"""Back-end: assisted ("speculative") decoding. One text after the other, several tokens a step.

A drafter proposes tokens; the model reads them in one forward pass, and the sampler chooses at
each place what it would have chosen there anyway: a draft token is right if it is that one. The
first that is wrong gives way to the sampler's and ends the step. So the text is the one without
assistance, under any parameters, and a step gives one token at least.

For few prompts and large models, where a forward pass takes about as long for one token as for
ten; many prompts are faster in continuous batching.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from worker.engine.protocol import EngineConfig
from worker.engine.shared.backend import OnEnd
from worker.engine.shared.continuation import Continuation, look_ahead
from worker.engine.shared.padded import PaddedBackend
from worker.engine.shared.rows import Row
from worker.engine.transformers import memory, sampler
from worker.engine.transformers.assisted.cached import CachedModel
from worker.engine.transformers.assisted.drafting import Drafter
from worker.engine.transformers.loading import LoadedModel
from worker.engine.transformers.logprobs import record_logprobs

#: A forward pass of fewer tokens is not worth halving.
_FLOOR = 16
#: Seconds between two reports of how well the drafts do.
_REPORT_EVERY = 60.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """How well the drafts do."""

    steps: int = 0
    tokens: int = 0
    drafted: int = 0
    taken: int = 0

    def __str__(self) -> str:
        a_step = self.tokens / max(1, self.steps)
        right = 100 * self.taken / max(1, self.drafted)
        return (
            f"{self.tokens:,} tokens in {self.steps:,} steps, {a_step:.2f} a step; "
            f"{right:.0f} % of {self.drafted:,} drafted ones were right"
        )


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt that was read and is to be continued again: the request has more samples."""

    token_ids: Sequence[int]
    read: Sequence[tuple[CachedModel, Any]]


class AssistedBackend(PaddedBackend):
    """Drafts, checked by the model."""

    def __init__(
        self,
        loaded: LoadedModel,
        config: EngineConfig,
        drafter: Drafter,
    ) -> None:
        on_cpu = loaded.device.type == "cpu"
        super().__init__(config, on_cpu=on_cpu)
        self.capacity = 1
        self.name = f"assisted, {drafter.name}"
        self.tally = Tally()
        self._loaded = loaded
        self._drafter = drafter
        self._model = CachedModel(loaded.model, loaded.device)
        default = memory.CPU_BATCH_TOKENS if on_cpu else memory.DEVICE_BATCH_TOKENS
        #: Tokens of a prompt in one forward pass; falls after running out of memory.
        self._piece = config.max_batch_tokens or default
        self._prompt: _Prompt | None = None
        self._reported = time.monotonic()

    def start(self, on_end: OnEnd) -> None:
        for model in self._models():
            model.quicken(self._drafter.longest + 1)
        super().start(on_end)

    def close(self) -> None:
        super().close()
        self._report()
        for model in self._models():
            model.close()
        self._prompt = None

    def _is_out_of_memory(self, error: Exception) -> bool:
        return memory.is_out_of_memory(error)

    def _divide(self, batch: list[Continuation], reason: str, out_of_memory: bool) -> None:
        """Of one text, what can be halved is how much of its prompt is read at once."""
        self._prompt = None
        if not out_of_memory:
            super()._divide(batch, reason, out_of_memory)
            return
        for model in self._models():
            model.forget()
        _free_memory()
        if self._piece <= _FLOOR:
            super()._divide(batch, reason, out_of_memory)
            return
        self._piece = max(_FLOOR, self._piece // 2)
        _log.warning(
            "out of memory: going on with at most %d tokens of a prompt in one pass",
            self._piece,
            extra={"action": "engine_shrink", "capacity": self.capacity},
        )
        for continuation in batch:
            continuation.restart()
        self._generate(batch)

    def _forward(self, batch: list[Continuation]) -> None:
        for one in batch:
            one.start()
            self._begin(one)
            while not (one.done or self._closed):
                with self._turn(one):
                    self._step(one)
        if time.monotonic() - self._reported > _REPORT_EVERY:
            self._report()

    @contextmanager
    def _turn(self, one: Continuation) -> Iterator[None]:
        """The model is ours, to go on with this text."""
        adapter = self._loaded.adapters.rows([one.params.adapter])
        with self._loaded.turns.take(), torch.inference_mode(), adapter:
            yield

    # --- the prompt ---

    def _begin(self, one: Continuation) -> None:
        self._drafter.begin(one)
        small = self._drafter.model
        models = [self._model] if small is None else [self._model, small]
        kept = self._prompt
        if kept is not None and kept.token_ids is one.prompt_ids:
            for model, state in kept.read:
                model.resume(state)
        else:
            self._prompt = kept = None
            for model in models:
                self._read_prompt(model, one)
        last = one.index == one.params.n - 1
        if last:
            self._prompt = None
        elif kept is None and not one.done and not self._closed:
            read = [(model, model.kept()) for model in models]
            self._prompt = _Prompt(one.prompt_ids, read)

    def _read_prompt(self, model: CachedModel, one: Continuation) -> None:
        """In pieces, but for what the first step is to read: the last piece or token."""
        model.begin()
        prompt = one.prompt_ids
        leave = 1 if one.params.n > 1 else self._piece
        while len(prompt) - model.length > leave and not (one.done or self._closed):
            until = min(model.length + self._piece, len(prompt) - 1)
            with self._turn(one):
                model.read(prompt[model.length : until], 1)
                model.drop(0)
            self.progress.step(0)

    # --- a step ---

    def _step(self, one: Continuation) -> None:
        draft, rows = self._draft(one)
        unread = [*one.prompt_ids, *one.token_ids][self._model.length :]
        logits = self._model.read([*unread, *draft], len(rows))
        tokens = sampler.choose(logits, rows)
        chosen = tokens.tolist()
        taken = _agreement(draft, chosen)
        before = len(one.token_ids)
        valid = slice(0, taken + 1)
        record_logprobs([one] * (taken + 1), logits[valid], tokens[valid])
        for token in chosen[valid]:
            if one.phases is not None:  # what a token begins depends on what was allowed there
                look_ahead([one], self._model.vocabulary)
            if one.accept(token):
                break
        del one.scores[len(one.token_ids) :]  # of what lies behind a stop string
        self._model.drop(len(draft) - taken)
        self._drafter.close(len(draft), taken)
        self._count(len(one.token_ids) - before, len(draft), taken)

    def _draft(self, one: Continuation) -> tuple[list[int], list[Row]]:
        """Tokens to be tried, and what each of them and the one behind is to be chosen with."""
        fork, vocabulary = one.fork(), self._model.vocabulary
        propose = self._drafter.open(one)
        draft: list[int] = []
        look_ahead([fork], vocabulary)
        rows = [fork.row()]
        # The last token that the text may have need not be drafted: it comes with the check.
        for _ in range(one.limit - len(one.token_ids) - 1):
            token = propose(rows[-1])
            if token is None or not _allowed(fork, token, vocabulary) or fork.accept(token):
                break
            draft.append(token)
            look_ahead([fork], vocabulary)
            rows.append(fork.row())
        return draft, rows

    def _count(self, tokens: int, drafted: int, taken: int) -> None:
        self.progress.step(tokens)
        self.tally.steps += 1
        self.tally.tokens += tokens
        self.tally.drafted += drafted
        self.tally.taken += taken

    def _report(self) -> None:
        self._reported = time.monotonic()
        if self.tally.steps:
            _log.info("%s: %s", self.name, self.tally, extra={"action": "assisted"})

    def _models(self) -> list[CachedModel]:
        return [self._model, *self._drafter.models]


def _agreement(draft: Sequence[int], chosen: Sequence[int]) -> int:
    """How many tokens of the draft are the chosen ones, up to the first that is not."""
    for place, (guess, token) in enumerate(zip(draft, chosen, strict=False)):
        if guess != token:
            return place
    return len(draft)


def _allowed(one: Continuation, token: int, vocabulary: int) -> bool:
    return token < vocabulary and (one.guide is None or one.guide.allows(token))


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
