"""A chunk belongs to one worker at a time, whoever asks and however many."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, event, update

from db.database import Database
from db.queries import chunks, jobs, recovery, steering
from db.records import Claim
from db.schema import chunks as chunk_table
from db.settings import Settings
from db.states import BatchState, JobState
from tests.support.crowd import at_once
from tests.support.stored import (
    LEASE,
    QUEUE,
    a_batch,
    a_claim,
    a_worker,
    batch_now,
    chunk_states,
    claims,
    expire,
)


def claim(database: Database, chunk: int, worker: int, lease: float = LEASE) -> Claim | None:
    with database.write() as connection:
        return chunks.claim(connection, chunk, worker=worker, lease=lease)


def taken(database: Database, worker: int) -> Claim:
    found = a_claim(database, worker)
    assert found is not None
    return found


def test_given_a_waiting_chunk_when_claimed_then_the_worker_gets_all_it_needs(
    database: Database,
) -> None:
    batch = a_batch(database, 6, chunk_size=4, invalid=[2], params={"temperature": 0.5})
    worker = a_worker(database)
    first = taken(database, worker)
    assert (first.batch, first.batch_uid, first.params) == (
        batch.key,
        batch.id,
        {"temperature": 0.5},
    )
    assert [(job.line, job.request, job.attempts) for job in first.jobs] == [
        (line, f'{{"prompt":"prompt {line}"}}', 0) for line in (1, 3, 4)
    ]
    assert abs(first.now - time.time()) < 5
    now = batch_now(database, batch)
    assert now.state == BatchState.IN_PROGRESS
    assert now.started_at is not None
    assert chunk_states(database, batch.key) == ["running", "queued"]
    with database.read() as connection:
        running, waiting = (jobs.get_job(connection, batch.id, line) for line in (1, 5))
    assert (running.state, waiting.state) == (JobState.RUNNING, JobState.QUEUED)
    assert running.worker is not None
    assert running.started_at is not None


def test_given_a_claimed_chunk_when_claimed_again_then_there_is_nothing_to_be_had(
    database: Database,
) -> None:
    batch = a_batch(database, 1)
    worker, other = a_worker(database), a_worker(database)
    first = taken(database, worker)
    assert claim(database, first.chunk, other) is None
    assert a_claim(database, other) is None
    with database.write() as connection:
        assert chunks.finish(connection, {first.chunk: first.token})
    assert claim(database, first.chunk, other) is None
    assert claim(database, 10**9, other) is None
    assert chunk_states(database, batch.key) == ["done"]


def test_given_one_chunk_when_eight_threads_claim_it_then_one_has_it(database: Database) -> None:
    batch = a_batch(database, 1)
    worker = a_worker(database)
    chunk = taken(database, worker)
    with database.write() as connection:
        chunks.release(connection, chunk.chunk, chunk.token)
    won = at_once([lambda: claim(database, chunk.chunk, worker)] * 8)
    assert len([one for one in won if one is not None]) == 1
    assert chunk_states(database, batch.key) == ["running"]


@pytest.mark.parametrize("by_message", [True, False])
def test_given_200_chunks_when_eight_threads_claim_them_then_each_is_claimed_once(
    database_url: str, by_message: bool
) -> None:
    database = Database(Settings(database_url=database_url), pool_size=8)
    a_batch(database, 200, chunk_size=1)
    with database.write() as connection:
        ids = [one[0] for one in chunks.take_unsent(connection, 1_000)]
    assert len(ids) == 200

    def worker(number: int) -> Callable[[], list[Claim]]:
        key = a_worker(database)

        def run() -> list[Claim]:
            if not by_message:
                return claims(database, key)
            # Every message reaches everyone, in another order.
            order = ids[number * 25 :] + ids[: number * 25]
            return [one for chunk in order if (one := claim(database, chunk, key)) is not None]

        return run

    found = [one for part in at_once([worker(number) for number in range(8)]) for one in part]
    assert Counter(one.chunk for one in found) == Counter(ids)
    assert len({one.token for one in found}) == 200
    assert sorted(job.line for one in found for job in one.jobs) == list(range(1, 201))
    database.close()


def test_given_batches_of_several_priorities_when_claimed_then_the_most_urgent_comes_first(
    database: Database,
) -> None:
    order = {a_batch(database, 2, chunk_size=1, priority=p).id: p for p in (2, 9, 5, 0)}
    other_queue = a_batch(database, 1, priority=9, queue="promptmill.other")
    found = claims(database, a_worker(database))
    assert [order[one.batch_uid] for one in found] == [9, 9, 5, 5, 2, 2, 0, 0]
    assert [one.jobs[0].line for one in found] == [1, 2] * 4
    assert chunk_states(database, other_queue.key) == ["queued"]


def test_given_a_chunk_that_must_wait_when_claimed_too_early_then_it_is_not_to_be_had(
    database: Database,
) -> None:
    a_batch(database, 1)
    worker = a_worker(database)
    first = taken(database, worker)
    with database.write() as connection:
        assert chunks.release(connection, first.chunk, first.token, delay=0.5)
        assert chunks.take_unsent(connection, 10) == []
    assert a_claim(database, worker) is None
    assert claim(database, first.chunk, worker) is None
    with database.write() as connection:
        connection.execute(update(chunk_table).values(not_before=1.0))
        assert len(chunks.take_unsent(connection, 10)) == 1
    assert taken(database, worker).chunk == first.chunk


def test_given_a_paused_batch_when_claimed_then_it_is_not_to_be_had(database: Database) -> None:
    batch = a_batch(database, 8, chunk_size=4)
    worker = a_worker(database)
    with database.write() as connection:
        ids = [one[0] for one in chunks.take_unsent(connection, 10)]
        steering.pause(connection, batch.id)
    assert a_claim(database, worker) is None
    assert claim(database, ids[0], worker) is None


def test_given_leases_when_renewed_then_only_those_still_ours_are_kept(database: Database) -> None:
    a_batch(database, 4, chunk_size=1)
    worker = a_worker(database)
    mine, done, lost, stolen = claims(database, worker)
    with database.write() as connection:
        chunks.finish(connection, {done.chunk: done.token})
        chunks.release(connection, lost.chunk, lost.token)
        chunks.release(connection, stolen.chunk, stolen.token)
    assert claim(database, stolen.chunk, a_worker(database)) is not None
    tokens = {one.chunk: one.token for one in (mine, done, lost, stolen)}
    with database.write() as connection:
        assert set(chunks.renew(connection, tokens, lease=LEASE)) == {mine.chunk}
        assert set(chunks.renew(connection, {}, lease=LEASE)) == set()
    assert chunk_states(database, mine.batch) == ["running", "done", "queued", "running"]


def test_given_an_expired_lease_that_nobody_found_when_renewed_then_it_goes_on(
    database: Database,
) -> None:
    a_batch(database, 1)
    mine = taken(database, a_worker(database))
    expire(database, mine.chunk)
    with database.write() as connection:
        assert chunks.renew(connection, {mine.chunk: mine.token}, lease=LEASE)
    with database.read() as connection:
        assert recovery.expired_leases(connection, 10) == []


def _release(connection: Connection, claim: Claim) -> int:
    return chunks.release(connection, claim.chunk, claim.token)


def _finish(connection: Connection, claim: Claim) -> int:
    return chunks.finish(connection, {claim.chunk: claim.token})


@pytest.mark.parametrize("end", [_release, _finish])
def test_given_a_stale_token_when_a_chunk_is_ended_then_its_new_owner_keeps_it(
    database: Database, end: Callable[[Connection, Claim], int]
) -> None:
    batch = a_batch(database, 1)
    old = taken(database, a_worker(database))
    with database.write() as connection:
        assert chunks.release(connection, old.chunk, old.token)
    new = taken(database, a_worker(database))
    with database.write() as connection:
        assert not end(connection, old)
        assert set(chunks.renew(connection, {new.chunk: new.token}, lease=LEASE)) == {new.chunk}
    assert chunk_states(database, batch.key) == ["running"]


def test_given_a_released_chunk_when_looked_at_then_its_message_goes_out_again(
    database: Database,
) -> None:
    a_batch(database, 1, priority=6)
    mine = taken(database, a_worker(database))
    with database.write() as connection:
        assert chunks.take_unsent(connection, 10) == []
        assert chunks.release(connection, mine.chunk, mine.token)
        assert chunks.take_unsent(connection, 10, queue="promptmill.other") == []
        assert chunks.take_unsent(connection, 10, queue=QUEUE) == [(mine.chunk, QUEUE, 6)]
        assert chunks.take_unsent(connection, 10) == []
        chunks.unsend(connection, [mine.chunk])
        assert chunks.take_unsent(connection, 10, batch=mine.batch) == [(mine.chunk, QUEUE, 6)]


def test_given_unsent_chunks_when_many_senders_take_them_then_each_is_sent_once(
    database: Database,
) -> None:
    a_batch(database, 60, chunk_size=1)

    def send() -> list[int]:
        sent: list[int] = []
        while True:
            with database.write() as connection:
                due = chunks.take_unsent(connection, 7)
            if not due:
                return sent
            sent += [chunk for chunk, _, _ in due]

    sent = [chunk for part in at_once([send] * 4) for chunk in part]
    assert len(sent) == len(set(sent)) == 60


def test_given_a_claim_that_is_not_yet_committed_when_another_claims_then_it_does_not_wait(
    postgres_url: str,
) -> None:
    database = Database(Settings(database_url=postgres_url))
    a_batch(database, 3, chunk_size=1)
    worker = a_worker(database)
    # The first claim of all starts the batch: others wait for its row.
    taken(database, worker)
    with database.write() as connection:
        first = chunks.claim_next(connection, QUEUE, worker=worker, lease=LEASE)
        second = taken(database, worker)
    assert first is not None
    assert second.chunk != first.chunk
    database.close()


def test_given_a_chunk_when_claimed_then_it_takes_few_statements_however_many_jobs_it_has(
    database: Database,
) -> None:
    a_batch(database, 2_000, chunk_size=1_000)
    worker = a_worker(database)
    seen: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    found = taken(database, worker)
    assert len(found.jobs) > 50
    assert len([one for one in seen if not one.startswith("BEGIN")]) <= 5
