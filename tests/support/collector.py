"""Submitting to an engine and waiting for the answers, never for a fixed time."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Condition
from typing import Any

from db.sampling import SamplingParams
from worker.engine.protocol import Completed, Engine, Outcome, Request

#: Seconds after which an answer is given up: far more than any test needs.
DEADLINE = 60.0


class Collector:
    """Keeps every answer, doubles included; its `on_done` may be called from any thread."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, Outcome]] = []
        self._changed = Condition()

    def on_done(self, request_id: str, outcome: Outcome) -> None:
        with self._changed:
            self.answers.append((request_id, outcome))
            self._changed.notify_all()

    def wait(self, count: int) -> dict[str, Outcome]:
        """Answers by request id, once there are `count`; fails the test at the deadline."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self.answers) >= count, DEADLINE)
            assert there, f"{len(self.answers)} of {count} answers after {DEADLINE:g} s"
            return dict(self.answers)


def request(
    request_id: str, prompt: str | list[dict[str, str]], seed: int = 0, **params: Any
) -> Request:
    """A request; greedy and of 8 tokens where `params` says nothing else."""
    given = {"temperature": 0.0, **params}
    if "max_length" not in given:
        given.setdefault("max_tokens", 8)
    text, messages = (prompt, None) if isinstance(prompt, str) else (None, prompt)
    return Request(
        id=request_id,
        params=SamplingParams.model_validate(given),
        seed=seed,
        prompt=text,
        messages=messages,
    )


def outcomes(engine: Engine, requests: Iterable[Request]) -> dict[str, Outcome]:
    """Submit all at once and wait for all; each was answered exactly once so far."""
    collector = Collector()
    wanted = list(requests)
    for one in wanted:
        engine.submit(one, collector.on_done)
    answers = collector.wait(len(wanted))
    assert sorted(name for name, _ in collector.answers) == sorted(one.id for one in wanted)
    return answers


def completed(engine: Engine, requests: Iterable[Request]) -> dict[str, Completed]:
    """As `outcomes`, for requests that must complete."""
    answers = outcomes(engine, requests)
    broken = {name: one for name, one in answers.items() if not isinstance(one, Completed)}
    assert not broken
    return {name: one for name, one in answers.items() if isinstance(one, Completed)}
