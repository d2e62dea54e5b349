"""An engine that takes lists of prompts in front of one that takes one prompt at a time.

OpenAI's completions and embeddings take several prompts in one request. Here such a request is one
job: it becomes a request for each prompt, and one outcome again, whose samples follow each other in
the order of the prompts. If one prompt fails, all of it fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TypeVar

from db.sampling import seed_of_prompt
from worker.asking import surprise
from worker.engine.protocol import (
    Cancelled,
    Completed,
    Embedded,
    Engine,
    EngineInfo,
    EngineStats,
    Failed,
    Measured,
    Measurement,
    MeasuringEngine,
    OnDone,
    Outcome,
    PromptInput,
    Request,
    Scored,
)

logger = logging.getLogger(__name__)

R = TypeVar("R", Request, Measurement)


def with_prompt_lists(engine: Engine) -> Engine:
    """The engine, able to take requests with `prompts`; it measures if the engine does."""
    return _Measuring(engine) if isinstance(engine, MeasuringEngine) else _PromptLists(engine)


class _PromptLists:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lists: dict[str, _List] = {}
        self._lock = Lock()

    def start(self) -> EngineInfo:
        return self._engine.start()

    def submit(self, request: Request, on_done: OnDone) -> None:
        self._ask(request, on_done, self._engine.submit)

    def cancel(self, request_id: str) -> None:
        with self._lock:
            several = self._lists.get(request_id)
        if several is None:
            self._engine.cancel(request_id)
            return
        several.fail(Cancelled())
        for id_ in several.open:
            self._engine.cancel(id_)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def close(self) -> None:
        self._engine.close()

    def _ask(self, request: R, on_done: OnDone, ask: Callable[[R, OnDone], None]) -> None:
        if request.prompts is None:
            ask(request, on_done)
            return
        parts = [_part(request, at, prompt) for at, prompt in enumerate(request.prompts)]
        several = _List([part.id for part in parts])
        with self._lock:
            self._lists[request.id] = several
        for part in parts:
            answered = partial(self._answered, request.id, several, on_done)
            if several.failure is not None:  # of one before it: this one would be for nothing
                answered(part.id, several.failure)
                continue
            try:
                ask(part, answered)
            except Exception as error:
                logger.exception("a request could not be made", extra={"action": "surprise"})
                answered(part.id, surprise(error))

    def _answered(
        self, request_id: str, several: _List, on_done: OnDone, id_: str, outcome: Outcome
    ) -> None:
        if several.answer(id_, outcome):
            for other in several.open:
                self._engine.cancel(other)
        self._end(request_id, several, on_done)

    def _end(self, request_id: str, several: _List, on_done: OnDone) -> None:
        """Answer, once, when every part has."""
        if not several.take_end():
            return
        with self._lock:
            self._lists.pop(request_id, None)
        on_done(request_id, several.outcome())


class _Measuring(_PromptLists):
    _engine: MeasuringEngine

    def measure(self, request: Measurement, on_done: OnDone) -> None:
        self._ask(request, on_done, self._engine.measure)


class _List:
    """The parts of one request: which are open, and what the others came to."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._outcomes: dict[str, Outcome] = {}
        self._lock = Lock()
        self._ended = False
        #: The first outcome that no list can be made of.
        self.failure: Failed | Cancelled | None = None

    @property
    def open(self) -> list[str]:
        with self._lock:
            return [id_ for id_ in self._ids if id_ not in self._outcomes]

    def answer(self, id_: str, outcome: Outcome) -> bool:
        """Note a part's outcome; whether the others have become useless with it."""
        with self._lock:
            self._outcomes[id_] = outcome
        return isinstance(outcome, Failed | Cancelled) and self.fail(outcome)

    def fail(self, outcome: Failed | Cancelled) -> bool:
        """No list will be made any more; whether that is news."""
        with self._lock:
            news = self.failure is None
            if news:
                self.failure = outcome
            return news

    def take_end(self) -> bool:
        """Whether every part has answered; True once."""
        with self._lock:
            if self._ended or len(self._outcomes) < len(self._ids):
                return False
            self._ended = True
            return True

    def outcome(self) -> Outcome:
        """Of the request as a whole."""
        if self.failure is not None:
            return self.failure
        return _joined([self._outcomes[id_] for id_ in self._ids])


def _part(request: R, at: int, prompt: PromptInput) -> R:
    """The request for one prompt of its list."""
    text, ids = (prompt, None) if isinstance(prompt, str) else (None, prompt)
    id_ = f"{request.id}/{at}"
    if isinstance(request, Request):
        seed = seed_of_prompt(request.seed, at)
        return replace(request, id=id_, prompts=None, prompt=text, prompt_ids=ids, seed=seed)
    return replace(request, id=id_, prompts=None, prompt=text, prompt_ids=ids)


def _joined(outcomes: Sequence[Outcome]) -> Outcome:
    completed = [one for one in outcomes if isinstance(one, Completed)]
    if len(completed) < len(outcomes):
        return Measured(tuple(one for one in outcomes if isinstance(one, Scored | Embedded)))
    samples = [sample for one in completed for sample in one.samples]
    return Completed(
        samples=tuple(replace(sample, index=at) for at, sample in enumerate(samples)),
        prompt_tokens=sum(one.prompt_tokens for one in completed),
        started_at=min(one.started_at for one in completed),
    )
