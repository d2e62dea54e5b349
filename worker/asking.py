"""Asking an engine until its answer will do: `second_tries` decides, this carries it out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from worker.engine.protocol import Cancelled, Completed, Engine, Failed, Outcome, Request
from worker.second_tries import Kept, Tried, may_ask_again, next_try, tried, verdict

logger = logging.getLogger(__name__)

#: Called once, with the id of the last request, the outcome, and the tries before it.
OnEnd = Callable[[str, Outcome, Sequence[Kept]], None]


class Asker(Protocol):
    """Who waits for the answers."""

    @property
    def over(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def replaced(self, old: str, new: str) -> bool:
        """The request `old` goes on as `new`; False: it does not, its end is near."""
        ...


def ask(engine: Engine, name: str, request: Request, on_end: OnEnd, asker: Asker) -> None:
    """Ask, and ask again where the answer is not good enough. `name` is the engine's.

    `on_end` follows exactly once, from a thread of the engine's or before this returns. Raises
    what the engine's first `submit` raises.
    """
    if may_ask_again(request):
        _Asking(engine, name, request, on_end, asker).begin()
    else:
        engine.submit(request, lambda id_, outcome: on_end(id_, outcome, ()))
    _forget_if_over(engine, request, asker)


def _forget_if_over(engine: Engine, request: Request, asker: Asker) -> None:
    """Whoever ended it while it was submitted may have found nothing to cancel."""
    if asker.over:
        engine.cancel(request.id)


class _Asking:
    """One job's tries; the engine answers one at a time."""

    def __init__(
        self, engine: Engine, name: str, request: Request, on_end: OnEnd, asker: Asker
    ) -> None:
        self._engine = engine
        self._name = name
        self._request = request
        self._on_end = on_end
        self._asker = asker
        self._tries: list[Tried] = []

    def begin(self) -> None:
        self._engine.submit(self._request, self._on_done)

    def _on_done(self, request_id: str, outcome: Outcome) -> None:
        if not isinstance(outcome, Completed | Failed):
            self._on_end(request_id, outcome, ())
            return
        try:
            self._tries.append(tried(self._request, outcome, time.time()))
            again = next_try(self._tries, self._name)
            told = verdict(self._tries)
        except Exception as error:
            logger.exception("an answer could not be judged", extra={"action": "surprise"})
            self._on_end(request_id, surprise(error), ())
            return
        if again is None:
            self._on_end(request_id, told.outcome, told.kept)
        elif self._asker.replaced(request_id, again.id):
            self._submit(again)
        else:
            self._on_end(request_id, Cancelled(), ())

    def _submit(self, again: Request) -> None:
        logger.debug(
            "request %s is asked again: max_tokens %s, seed %d",
            again.id, again.params.max_tokens, again.seed, extra={"action": "asks_again"},
        )  # fmt: skip
        self._request = again
        try:
            self._engine.submit(again, self._on_done)
        except Exception as error:
            logger.exception("a request could not be made", extra={"action": "surprise"})
            self._on_done(again.id, surprise(error))
        _forget_if_over(self._engine, again, self._asker)


def surprise(error: Exception) -> Failed:
    """What an error that nobody expected makes of a request."""
    return Failed("internal_error", f"{type(error).__name__}: {error}", retriable=True)
