"""`python -m worker.replay`: one request, asked of an engine of its own; the child of a producer.

Standard input has the order, a line of JSON, and then stays open as long as the parent lives.
Standard output gets a line of JSON back: `samples` and `provenance`, or `refused`, the reason.
It knows no database and no Redis: what is stored can't change.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from db.errors import PromptmillError, UsageError
from db.records import Provenance
from db.sampling import SamplingParams
from db.settings import Settings, settings
from worker.asking import ask
from worker.engine.protocol import (
    Completed,
    Engine,
    EngineInfo,
    Failed,
    Outcome,
    Request,
    Sample,
)
from worker.fingerprint import Fingerprint
from worker.loading import load_engine
from worker.logs import configure
from worker.parent import leave_with_parent
from worker.requests import prompt_of, sample_row
from worker.second_tries import Kept


def main() -> int:
    """Answer one order; 0, also where the answer is a refusal."""
    # Whatever a library prints must not stand among the answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    order = orjson.loads(sys.stdin.buffer.readline())
    leave_with_parent()
    try:
        config = settings()
        configure("WARNING")  # what it prints last is why it died
        answer = replay(config, order)
    except PromptmillError as error:
        answer = {"refused": error.message}
    with answers:
        answers.write(orjson.dumps(answer))
    return 0


def replay(config: Settings, order: Mapping[str, Any]) -> dict[str, Any]:
    """What the model of the settings answers to the order's request. Raises PromptmillError.

    The order has `id`, `prompt` or `messages` and `tools`, `params`, `seed`, the `clock` that a
    chat's template sees, and the `revision` that the model must have, or null for any.
    """
    if config.model is None:
        raise UsageError("no model is given")
    engine, info = load_engine(config, config.model)
    try:
        fingerprint = Fingerprint(info.folder, config.home / "digests")
        _check_revision(info, order["revision"])
        outcome = _ask(engine, config.engine, _request(order))
        made = asdict(_provenance(info, fingerprint, order["params"].get("adapter")))
    finally:
        engine.close()
    if isinstance(outcome, Failed):
        raise UsageError(f"{outcome.code}: {outcome.message}")
    if not isinstance(outcome, Completed):
        raise UsageError("it was stopped")
    return {"samples": [_told(one) for one in outcome.samples], "provenance": made}


def _told(sample: Sample) -> dict[str, Any]:
    """As it would be stored."""
    stored = sample_row(sample)
    calls = None if stored.tool_calls is None else orjson.loads(stored.tool_calls)
    return {
        "text": stored.text,
        "finish_reason": stored.finish_reason,
        "reasoning": stored.reasoning,
        "tool_calls": calls,
    }


def _check_revision(info: EngineInfo, wanted: str | None) -> None:
    if wanted is not None and info.revision != wanted:
        raise UsageError(
            f"model '{info.model}' has another revision here: {info.revision}, and the result is "
            f"of {wanted}: bring that one back"
        )


def _request(order: Mapping[str, Any]) -> Request:
    return Request(
        id=order["id"],
        params=SamplingParams.model_validate(order["params"]),
        seed=order["seed"],
        messages=order.get("messages"),
        tools=order.get("tools"),
        **prompt_of(order),
        clock=order.get("clock"),
    )


class _Patient:
    """It waits for every answer."""

    over = False

    def replaced(self, _old: str, _new: str) -> bool:
        return True


def _ask(engine: Engine, name: str, request: Request) -> Outcome:
    """With all its tries, as a worker asks."""
    answered = threading.Event()
    outcomes: list[Outcome] = []

    def on_end(_id: str, outcome: Outcome, _tries: Sequence[Kept]) -> None:
        outcomes.append(outcome)
        answered.set()

    ask(engine, name, request, on_end, _Patient())
    answered.wait()
    return outcomes[0]


def _provenance(info: EngineInfo, fingerprint: Fingerprint, adapter: str | None) -> Provenance:
    return Provenance(
        model=info.model,
        revision=info.revision,
        weights=fingerprint.weights(),
        tokenizer=fingerprint.tokenizer,
        adapter=info.adapters.get(adapter) if adapter else None,
        engine=info.engine,
        engine_version=info.engine_version,
        backend=info.backend,
        dtype=info.dtype,
        device=info.device,
        hardware=info.hardware,
    )


if __name__ == "__main__":
    sys.exit(main())
