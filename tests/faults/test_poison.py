"""Prompts that hang the engine or kill their worker, under `promptmill worker`, which keeps it.

Nobody starts a worker by hand here: one command at the beginning, and the batch ends.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from db.schema import attempts as attempt_table
from tests.acceptance.mill import Mill, echoing
from tests.faults.proof import proven
from tests.support.processes import eventually

#: Lines of a batch, and the one in the middle that is poison.
_LINES, _POISON = 24, 12

_KINDS = {"[[hang]]": "engine_stalled", "[[exit]]": "worker_lost"}


@pytest.fixture
def kept(either: Mill) -> Iterator[subprocess.Popen[str]]:
    """`promptmill worker`, with faults on."""
    either.env |= {
        "PROMPTMILL_MODEL": either.model,
        "PROMPTMILL_ENGINE_OPTIONS": echoing(latency=0.1, capacity=10, faults=True),
        "PROMPTMILL_STALL_TIMEOUT": "1",
        "PROMPTMILL_MAX_ATTEMPTS": "2",
        "PROMPTMILL_GRACE": "1",
        # Nobody waits for it: the chunks of a worker that dies before its keeper's eyes come back.
        "PROMPTMILL_LEASE": "600",
    }
    running = either.background("worker")
    yield running
    running.terminate()
    running.communicate(timeout=30)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("poison", _KINDS)
def test_given_a_poison_prompt_in_the_middle_of_a_chunk_when_it_runs_then_it_alone_is_parked(
    either: Mill, kept: subprocess.Popen[str], poison: str
) -> None:
    lines = [f"n{number} of many" for number in range(1, _LINES + 1)]
    lines[_POISON - 1] = f"{poison} {lines[_POISON - 1]}"
    batch = either.client.submit(lines, model=either.model).id
    either.until(batch, lambda now: now.finished, "finished", 120)
    proven(either, batch, _LINES, failed={_POISON: _KINDS[poison]})
    assert either.job(batch, _POISON).attempts == 2
    with either.client.database.read() as connection:
        told = connection.execute(
            select(attempt_table.c.error_code).where(attempt_table.c.line == _POISON)
        )
        assert set(told.scalars()) == {_KINDS[poison]}
    assert kept.poll() is None

    # And the worker is there for the next batch
    after = either.client.submit(lines[:4], model=either.model).id
    eventually(lambda: either.client.batch(after).finished, what="the next batch runs")
    proven(either, after, 4)
