"""Back-end: padded batches on a Keras model, step by step.

All rows of a batch stand at one place, as KerasHub's caches know one place only: a row whose
prompt is longer takes its prompt's tokens until its own text begins. Requests of like length
share a batch, so that is little. Rows that are done are dropped, and the cache grows as the
texts do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.engine.kerashub import buckets, sampler
from worker.engine.kerashub.compiled import Cache, Passes
from worker.engine.kerashub.framework import is_out_of_memory
from worker.engine.kerashub.loading import LoadedModel
from worker.engine.protocol import EngineConfig
from worker.engine.shared.continuation import Continuation, look_ahead
from worker.engine.shared.detokenizer import TokenScore
from worker.engine.shared.padded import PaddedBackend
from worker.engine.shared.rows import NOT_FINITE

#: Stands where a row has no token to show: in padding, and in rows that are done.
_FILL = 0


@dataclass(slots=True)
class _Batch:
    """Samples that run together; a row may be a copy of another, to fill the batch up."""

    #: None: a row that only fills.
    rows: list[Continuation | None]
    cache: Cache
    #: Tokens that the cache holds.
    length: int
    #: Place of the token that is taken next.
    place: int

    @property
    def done(self) -> list[bool]:
        return [one is None or one.done for one in self.rows]

    @property
    def live(self) -> list[Continuation]:
        return [one for one in self.rows if one is not None and not one.done]

    def tokens(self) -> NDArray[np.int32]:
        return np.asarray([_token_at(one, self.place) for one in self.rows], np.int32)


def _token_at(one: Continuation | None, place: int) -> int:
    """The token of prompt and text at that place."""
    if one is None:
        return _FILL
    if place < len(one.prompt_ids):
        return one.prompt_ids[place]
    place -= len(one.prompt_ids)
    return one.token_ids[place] if place < len(one.token_ids) else _FILL


class KerasBackend(PaddedBackend):
    """One thread that runs one padded batch after the other."""

    def __init__(
        self,
        loaded: LoadedModel,
        passes: Passes,
        config: EngineConfig,
    ) -> None:
        super().__init__(config, on_cpu=loaded.device.on_cpu)
        self._device = loaded.device
        self._context_length = loaded.context_length
        self._passes = passes

    def _is_out_of_memory(self, error: Exception) -> bool:
        return is_out_of_memory(error)

    def _forward(self, batch: list[Continuation]) -> None:
        for continuation in batch:
            continuation.start()
        with self._device.scope():
            running = self._read(batch)
            while running.live and not self._closed:
                self._step(running)

    def _read(self, batch: list[Continuation]) -> _Batch:
        """Compute keys and values of all prompts at once."""
        rows: list[Continuation | None] = [*batch]
        rows += [None] * (buckets.batch_rows(len(batch), self.capacity) - len(batch))
        lengths = [1 if one is None else len(one.prompt_ids) for one in rows]
        width = buckets.prompt_width(max(lengths), self._context_length)
        ids = np.full((len(rows), width), _FILL, np.int32)
        for row, one in enumerate(batch):
            ids[row, : len(one.prompt_ids)] = one.prompt_ids
        cache = self._passes.read(ids, lengths)
        return _Batch(rows, cache, width, place=0)

    def _step(self, running: _Batch) -> None:
        """One token more for every row whose prompt has been taken."""
        # Keys and values of prompts are there; the first token to take is the one whose logits
        # somebody waits for.
        running.place = max(running.place, min(len(one.prompt_ids) for one in running.live) - 1)
        self._make_room(running)
        logits, running.cache = self._passes.step(running.tokens(), running.cache, running.place)
        running.place += 1
        ready = [
            (row, one)
            for row, one in enumerate(running.rows)
            if one is not None and not one.done and len(one.prompt_ids) <= running.place
        ]
        look_ahead([one for _, one in ready], logits.shape[1])
        for row, one in ready:
            self._accept(one, logits[row])
        self.progress.step(len(ready))
        kept = buckets.rows_to_keep(running.done)
        if kept is not None and running.live:
            running.rows = [running.rows[row] for row in kept]
            running.cache = self._passes.kept(running.cache, kept)

    def _make_room(self, running: _Batch) -> None:
        length = buckets.cache_length(running.place + 1, self._context_length)
        if length > running.length:
            running.cache = self._passes.grown(running.cache, length)
            running.length = length

    def _accept(self, one: Continuation, logits: NDArray[np.float32]) -> None:
        token = sampler.choose(logits, one.row())
        if one.params.wants_logprobs and token != NOT_FINITE:
            own, top = sampler.logprobs(logits, token, one.params.alternatives)
            one.scores.append(TokenScore(token, own, tuple(top)))
        one.accept(token)
