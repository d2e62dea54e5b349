"""The audit: silent on what promptmill makes, and exact about what was broken by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from db.database import Database
from db.errors import NotFoundError
from db.queries import outcomes, steering
from db.queries.audit import Violation, audit, findings, unattended
from db.queries.audit.registry import INVARIANTS
from db.records import Batch
from tests.integration.db.audit_breaks import BREAKS, Break
from tests.support.by_hand import by_hand
from tests.support.invariants import Snapshot
from tests.support.steering import cancel, retry, steer, write
from tests.support.stored import a_batch, a_claim, a_worker, batch_now, failed, succeeded


@dataclass(frozen=True)
class Stored:
    """Batches in every stage. Keys are the values of `:busy` and the like in a statement."""

    #: Lines 1-4 done (2 failed), 5-8 running, 9-12 queued; two samples each.
    busy: Batch
    #: Completed: 1 and 2 with two samples each, 3 failed, 4 with three samples.
    done: Batch
    #: Four lines, held.
    paused: Batch

    @property
    def keys(self) -> dict[str, int]:
        return {"busy": self.busy.key, "done": self.done.key, "paused": self.paused.key}

    @property
    def ids(self) -> dict[str, str]:
        return {"busy": self.busy.id, "done": self.done.id, "paused": self.paused.id}


@pytest.fixture
def stored(database: Database) -> Stored:
    worker = a_worker(database)
    done = a_batch(database, 4, params={"n": 2}, invalid=(3,))
    by_hand(
        database,
        """UPDATE jobs SET request = '{"prompt": "x", "params": {"n": 3}}' WHERE line = 4""",
    )
    claim = a_claim(database, worker)
    assert claim is not None
    with database.write() as connection:
        made = [
            succeeded(claim, line, *"abc"[:samples]) for line, samples in ((1, 2), (2, 2), (4, 3))
        ]
        outcomes.record(connection, made, worker=worker)
        outcomes.settle(connection, [claim.batch])
    by_hand(database, "UPDATE chunks SET state='done', lease_token=NULL, lease_expires_at=NULL")
    busy = a_batch(database, 12)
    first = a_claim(database, worker)
    assert first is not None
    write(database, first, worker, bad=(2,))
    assert a_claim(database, worker) is not None
    paused = a_batch(database, 4)
    steer(database, steering.pause, paused)
    return Stored(busy, batch_now(database, done), paused)


def audited(database: Database, batch: str | None = None) -> list[Violation]:
    with database.read() as connection:
        return audit(connection, batch=batch)


def test_given_batches_in_every_stage_when_audited_then_nothing_is_violated(
    database: Database, stored: Stored
) -> None:
    assert audited(database) == []
    Snapshot.of(database).check()
    cancel(database, stored.paused)
    assert audited(database) == []


def test_list_of_prompts_has_samples_of_each(database: Database, stored: Stored) -> None:
    request = '{"prompts": ["x", "y", "z"], "params": {"n": 1}}'
    statement = f"UPDATE jobs SET request = '{request}' WHERE batch_id=:done AND line=4"
    by_hand(database, statement, stored.keys)
    assert audited(database) == []


@pytest.mark.parametrize("one", BREAKS, ids=[one.name for one in BREAKS])
def test_given_one_thing_broken_by_hand_when_audited_then_exactly_that_is_told(
    database: Database, stored: Stored, one: Break
) -> None:
    by_hand(database, one.statements, stored.keys)
    (violation,) = audited(database)
    assert (violation.name, violation.count) == (one.name, one.number)
    expected = [example.format(**stored.ids) for example in one.examples]
    assert list(violation.examples[: len(expected)]) == expected
    assert violation.advice


def test_given_the_registry_when_compared_with_these_tests_then_each_invariant_has_one() -> None:
    names = [one.name for one in INVARIANTS]
    assert len(names) == len(set(names))
    assert set(names) == {one.name for one in BREAKS}


def test_given_a_broken_batch_when_another_one_is_audited_then_it_is_none_of_its_business(
    database: Database, stored: Stored
) -> None:
    by_hand(database, "UPDATE batches SET failed=9 WHERE id=:done", stored.keys)
    by_hand(database, "DELETE FROM chunks WHERE batch_id=:paused", stored.keys)
    assert audited(database, batch=stored.busy.id) == []
    assert [one.name for one in audited(database, batch=stored.done.id)] == ["counters"]
    assert [one.name for one in audited(database, batch=stored.paused.id)] == ["stranded jobs"]
    with pytest.raises(NotFoundError):
        audited(database, batch="b22222222222")


def test_given_more_than_a_few_when_audited_then_all_are_counted_and_the_first_shown(
    database: Database, stored: Stored
) -> None:
    by_hand(database, "DELETE FROM chunks WHERE batch_id=:busy", stored.keys)
    (violation,) = audited(database)
    assert violation.count == 8
    assert violation.examples == tuple(f"{stored.busy.id}-{line}" for line in (5, 6, 7, 8, 9))


def test_given_a_change_in_the_middle_of_an_audit_when_it_goes_on_then_it_sees_one_moment(
    database: Database, stored: Stored
) -> None:
    with database.read() as connection:
        asked = findings(connection)
        assert next(asked)[1] is None
        by_hand(database, "DELETE FROM chunks; UPDATE batches SET failed=9", stored.keys)
        assert [violation for _, violation in asked if violation] == []
    assert {one.name for one in audited(database)} == {"counters", "stranded jobs"}


def test_given_nobody_alive_when_a_lease_is_long_over_then_that_is_said_and_no_promise_broken(
    database: Database, stored: Stored
) -> None:
    by_hand(database, "UPDATE chunks SET lease_expires_at=1 WHERE state='running'")
    # A worker that has just started has not had its turn.
    assert audited(database) == []
    by_hand(database, "UPDATE workers SET started_at=1, heartbeat_at=2")
    assert audited(database) == []
    with database.read() as connection:
        found = unattended(connection)
    assert found is not None
    assert found.examples == (f"chunk 3 of {stored.busy.id}",)


def test_given_a_submission_under_way_when_audited_then_it_owes_nothing_yet(
    database: Database,
) -> None:
    batch = a_batch(database, 4, invalid=(2,))
    by_hand(database, "DELETE FROM chunks")
    by_hand(database, "UPDATE batches SET state='validating', total=0, failed=0")
    assert audited(database, batch=batch.id) == []


def test_given_a_job_retried_while_its_chunk_goes_on_when_audited_then_two_chunks_are_fine(
    database: Database,
) -> None:
    batch, worker = a_batch(database, 8), a_worker(database)
    claim = a_claim(database, worker)
    assert claim is not None
    with database.write() as connection:
        outcomes.record(connection, [failed(claim, 2)], worker=worker)
    assert retry(database, batch, [2]) == 1
    assert audited(database) == []
