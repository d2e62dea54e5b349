"""Filling and opening a batch."""

from __future__ import annotations

import orjson
import pytest
from sqlalchemy import event, func, select

from db.database import Database
from db.errors import ConflictError, NotFoundError, ValueRefused
from db.ids import new_uid
from db.queries import batches, chunks, jobs
from db.queries.jobs import NewJob
from db.schema import chunks as chunk_table
from db.states import BatchState, JobState
from tests.support.crowd import at_once
from tests.support.stored import (
    MODEL,
    QUEUE,
    a_batch,
    a_worker,
    batch_now,
    chunk_states,
    claims,
    recount,
)


def validating(database: Database) -> tuple[int, str]:
    """A batch that is still being filled."""
    uid = new_uid()
    with database.write() as connection:
        key = batches.create(
            connection,
            uid=uid,
            name="night run",
            model=MODEL,
            queue=QUEUE,
            priority=3,
            params={"temperature": 0.5},
            metadata={"who": "me"},
            chunk_size=4,
        )
    return key, uid


def activate(database: Database, key: int, total: int, idempotency: str | None = None) -> None:
    with database.write() as connection:
        batches.activate(
            connection, key, total=total, failed=0, digest="d", idempotency_key=idempotency
        )


def test_given_a_batch_when_created_then_no_worker_sees_any_of_it(database: Database) -> None:
    key, uid = validating(database)
    with database.write() as connection:
        jobs.insert_slice(connection, key, [NewJob(1, '{"prompt": "a"}')], now=1.0)
    with database.read() as connection:
        batch = batches.get(connection, uid)
    assert (batch.state, batch.total, batch.name) == (BatchState.VALIDATING, 0, "night run")
    assert (batch.params, batch.metadata) == ({"temperature": 0.5}, {"who": "me"})
    assert not batch.finished
    assert claims(database, a_worker(database)) == []
    with database.read() as connection:
        assert batches.find(connection, name="night run") == []


def test_given_jobs_when_inserted_then_every_text_comes_back_as_it_was(
    database: Database,
) -> None:
    texts = ["plain", "tab\tnew\nline\rback\\slash", "\\N", "", '"quoted"', "日本語 🎉", "\\."]
    key, uid = validating(database)
    new = [
        NewJob(line, orjson.dumps({"prompt": one}).decode(), custom_id=f"id {one}" if one else None)
        for line, one in enumerate(texts, start=1)
    ]
    with database.write() as connection:
        jobs.insert_slice(connection, key, new, now=1.0)
    with database.read() as connection:
        for line, one in enumerate(texts, start=1):
            job = jobs.get_job(connection, uid, line)
            assert job.request == {"prompt": one}
            assert job.custom_id == (f"id {one}" if one else None)
            assert (job.state, job.attempts, job.samples) == (JobState.QUEUED, 0, [])


def test_given_bad_lines_when_inserted_then_they_are_failed_jobs_with_their_reason(
    database: Database,
) -> None:
    batch = a_batch(database, 5, invalid=[2, 5])
    assert (batch.state, batch.failed, batch.done) == (BatchState.QUEUED, 2, 2)
    with database.read() as connection:
        bad = jobs.get_job(connection, batch.id, 2)
        assert recount(connection, batch.key) == {"queued": 3, "failed": 2}
    assert (bad.state, bad.error_code, bad.error_message) == (
        JobState.FAILED,
        jobs.INVALID,
        "it is bad",
    )
    assert bad.finished_at == 1.0
    found = claims(database, a_worker(database))
    assert [job.line for claim in found for job in claim.jobs] == [1, 3, 4]


def test_given_only_bad_lines_when_activated_then_the_batch_is_complete_at_once(
    database: Database,
) -> None:
    batch = a_batch(database, 3, invalid=[1, 2, 3])
    assert (batch.state, batch.failed, batch.total) == (BatchState.COMPLETED, 3, 3)
    assert batch.finished_at is not None
    assert chunk_states(database, batch.key) == []


def test_given_a_custom_id_when_given_twice_in_a_batch_then_the_database_refuses(
    database: Database,
) -> None:
    key, _ = validating(database)
    twins = [NewJob(line, "{}", custom_id="same") for line in (1, 2)]
    with pytest.raises(ValueRefused) as failure, database.write() as connection:
        jobs.insert_slice(connection, key, twins, now=1.0)
    assert "custom_id" in failure.value.message
    assert "\n" not in failure.value.message
    with database.read() as connection:
        assert recount(connection, key) == {}


def test_given_a_custom_id_when_another_batch_has_it_then_both_keep_it(database: Database) -> None:
    for _ in range(2):
        key, _ = validating(database)
        with database.write() as connection:
            new = [NewJob(1, "{}", custom_id="same"), NewJob(2, "{}"), NewJob(3, "{}")]
            jobs.insert_slice(connection, key, new, now=1.0)
            assert jobs.lines_of_custom_ids(connection, key, ["same", "other"], before=9) == {
                "same": 1
            }


def test_given_a_batch_when_activated_then_its_chunks_cover_it_and_wait_to_be_sent(
    database: Database,
) -> None:
    batch = a_batch(database, 10, chunk_size=4, priority=7)
    assert (batch.state, batch.total, batch.started_at) == (BatchState.QUEUED, 10, None)
    with database.write() as connection:
        ranges = connection.execute(
            select(chunk_table.c.first_line, chunk_table.c.last_line).order_by(chunk_table.c.id)
        ).all()
        sent = chunks.take_unsent(connection, 100, batch=batch.key)
    assert [tuple(row) for row in ranges] == [(1, 4), (5, 8), (9, 10)]
    assert [(queue, priority) for _, queue, priority in sent] == [(QUEUE, 7)] * 3


def test_given_more_chunks_than_one_slice_when_activated_then_all_are_there(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "SLICE", 7)
    key, _ = validating(database)
    with database.write() as connection:
        batches.activate(connection, key, total=80, failed=0, digest="d", idempotency_key=None)
        found = connection.execute(
            select(func.count(), func.sum(chunk_table.c.last_line - chunk_table.c.first_line + 1))
        ).one()
    assert tuple(found) == (20, 80)


def test_given_an_active_batch_when_activated_again_then_it_is_refused(database: Database) -> None:
    batch = a_batch(database, 4)
    with pytest.raises(ConflictError, match=f"batch {batch.id} is queued: it can't become queued"):
        activate(database, batch.key, 4)
    assert len(chunk_states(database, batch.key)) == 1


def test_given_an_idempotency_key_when_two_batches_want_it_then_one_gets_it(
    database: Database,
) -> None:
    first, uid = validating(database)
    second, _ = validating(database)
    activate(database, first, 4, "the key")
    with pytest.raises(ConflictError, match="idempotency key 'the key' is taken"):
        activate(database, second, 4, "the key")
    assert chunk_states(database, second) == []
    with database.read() as connection:
        assert [one.id for one in batches.find(connection, idempotency_key="the key")] == [uid]


def test_given_an_idempotency_key_when_many_want_it_at_once_then_one_gets_it(
    database: Database,
) -> None:
    keys = [validating(database)[0] for _ in range(6)]

    def one(key: int) -> bool:
        try:
            activate(database, key, 4, "the key")
        except ConflictError:
            return False
        return True

    won = at_once([lambda key=key: one(key) for key in keys])  # type: ignore[misc]
    assert sorted(won) == [False] * 5 + [True]


def test_given_batches_when_looked_for_then_the_newest_comes_first(database: Database) -> None:
    made = [a_batch(database, 1, name="twin").id for _ in range(3)]
    with database.read() as connection:
        found = batches.find(connection, name="twin")
        assert [one.id for one in found] == made[::-1]
        page = batches.newest(connection, 2)
        assert [one.id for one in page] == [made[2], made[1]]
        rest = batches.newest(connection, 2, before=page[-1].key)
        assert [one.id for one in rest] == [made[0]]


def test_given_no_such_batch_or_job_when_read_then_the_message_says_where_to_look(
    database: Database,
) -> None:
    batch = a_batch(database, 3)
    with database.read() as connection:
        with pytest.raises(NotFoundError, match="no batch bxyz: 'promptmill list' shows"):
            batches.get(connection, "bxyz")
        with pytest.raises(NotFoundError, match=f"{batch.id} has no job 4: its jobs are 1 to 3"):
            jobs.get_job(connection, batch.id, 4)


def test_given_a_poll_when_counted_then_it_is_one_statement_that_reads_one_row(
    database: Database,
) -> None:
    batch = a_batch(database, 50)
    seen: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    batch_now(database, batch)
    (statement,) = [one for one in seen if one != "BEGIN"]
    assert "jobs" not in statement
