"""Results as a stream: in order, whole, and of one moment."""

from __future__ import annotations

import time
import tracemalloc
from array import array
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from sqlalchemy import insert, text, update

from db.database import Database
from db.errors import DatabaseError
from db.input_columns import ABSENT, InputColumn
from db.modes import Mode
from db.queries import jobs, outcomes, results
from db.queries.outcomes import SampleRow
from db.records import Batch, Claim, Result
from db.sampling import MODELS, seed_of
from db.schema import batches as batch_table
from db.schema import jobs as job_table
from db.schema import results as result_table
from db.settings import Settings
from db.states import JobState
from db.vectors import pack
from tests.support.stored import (
    MODEL,
    a_batch,
    a_claim,
    a_worker,
    batch_now,
    claims,
    failed,
    succeeded,
)


@pytest.fixture
def batch(database: Database) -> Batch:
    return a_batch(database, 6, chunk_size=6, invalid=[6])


@pytest.fixture
def worker(database: Database) -> int:
    return a_worker(database, name="the worker", weights="5f" * 32)


@pytest.fixture
def held(database: Database, batch: Batch, worker: int) -> list[Claim]:
    return claims(database, worker)


def finish(database: Database, held: list[Claim], worker: int, line: int, *texts: str) -> None:
    (claim,) = [one for one in held if any(job.line == line for job in one.jobs)]
    made = succeeded(claim, line, *texts) if texts else failed(claim, line)
    with database.write() as connection:
        outcomes.record(connection, [made], worker=worker)
        # The clock's resolution must not decide on the order.
        order = [5, 1, 3, 2].index(line)
        connection.execute(
            update(job_table).where(job_table.c.line == line).values(finished_at=100.0 + order)
        )


@pytest.fixture
def finished(database: Database, batch: Batch, held: list[Claim], worker: int) -> Batch:
    """Lines 5, 1, 3, 2 have finished, in this order; 4 is open, 6 was invalid."""
    finish(database, held, worker, 5, "five")
    finish(database, held, worker, 1, "one", "uno")
    finish(database, held, worker, 3)
    finish(database, held, worker, 2, "two")
    return batch


def shown(found: Iterator[Result]) -> list[tuple[int, int, str | None]]:
    return [(one.line, one.sample, one.text) for one in found]


def test_given_finished_jobs_when_streamed_then_they_come_as_they_finished(
    database: Database, finished: Batch
) -> None:
    assert shown(results.stream(database, finished, order="finished")) == [
        (6, 0, None),
        (5, 0, "five"),
        (1, 0, "one"),
        (1, 1, "uno"),
        (3, 0, None),
        (2, 0, "two"),
    ]


def test_given_finished_jobs_when_streamed_in_input_order_then_they_come_by_line(
    database: Database, finished: Batch
) -> None:
    found = shown(results.stream(database, finished, order="input"))
    assert [line for line, _, _ in found] == [1, 1, 2, 3, 5, 6]


def test_given_failed_jobs_when_only_they_are_streamed_then_they_tell_why(
    database: Database, finished: Batch
) -> None:
    found = list(results.stream(database, finished, order="input", only="failed"))
    assert [(one.line, one.state, one.error_code, one.attempts) for one in found] == [
        (3, JobState.FAILED, "broken", 1),
        (6, JobState.FAILED, "invalid_request", 0),
    ]
    assert [one.text for one in found] == [None, None]


def test_given_a_result_when_streamed_then_it_says_where_it_comes_from(
    database: Database, finished: Batch
) -> None:
    one = next(results.stream(database, finished, order="input", with_request=True))
    assert (one.id, one.batch) == (f"{finished.id}-1", finished.id)
    assert (one.model, one.revision, one.engine, one.dtype, one.worker) == (
        MODEL,
        "abc",
        "echo",
        "float32",
        "the worker",
    )
    assert (one.engine_version, one.device, one.weights) == ("1", "cpu", "5f" * 32)
    assert (one.prompt_tokens, one.completion_tokens, one.finish_reason) == (3, 2, "stop")
    assert one.request == '{"prompt":"prompt 1"}'
    assert next(results.stream(database, finished, order="finished")).request is None


def test_given_a_stream_when_jobs_finish_meanwhile_then_it_is_of_the_moment_it_began(
    database: Database, finished: Batch, held: list[Claim], worker: int
) -> None:
    stream = results.stream(database, finished, order="input")
    first = next(stream)
    with database.write() as connection:
        outcomes.record(connection, [succeeded(held[-1], 4)], worker=worker)
    assert [first.line, *(one.line for one in stream)] == [1, 1, 2, 3, 5, 6]
    later = [one.line for one in results.stream(database, finished, order="input")]
    assert later == [1, 1, 2, 3, 4, 5, 6]


def test_given_a_stream_that_is_left_early_when_closed_then_writers_go_on(
    database: Database, finished: Batch
) -> None:
    for _ in range(20):
        stream = results.stream(database, finished)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    a_batch(database, 1)


def test_given_another_batch_when_streamed_then_nothing_of_it_is_in_it(
    database: Database, finished: Batch
) -> None:
    empty = a_batch(database, 3)
    assert list(results.stream(database, empty)) == []


def test_given_a_large_batch_when_streamed_then_memory_does_not_grow_with_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, text = 6_000, "x" * 4_000
    batch = a_batch(database, 1)
    claim = a_claim(database, a_worker(database))
    assert claim is not None
    with database.write() as connection:
        connection.execute(
            update(job_table).values(state=JobState.SUCCEEDED, finished_at=1.0, attempts=1)
        )
        common = {"batch_id": batch.key, "state": JobState.SUCCEEDED, "request": "{}"}
        connection.execute(
            insert(job_table),
            [{**common, "line": line, "finished_at": 1.0} for line in range(2, count + 1)],
        )
        connection.execute(
            insert(result_table),
            [
                {
                    "batch_id": batch.key,
                    "line": line,
                    "sample": 0,
                    "text": text,
                    "finish_reason": "stop",
                    "completion_tokens": 1,
                }
                for line in range(1, count + 1)
            ],
        )
        connection.execute(update(batch_table).values(total=count, succeeded=count))
    large = batch_now(database, batch)
    cursors: list[str] = []
    open_cursor = results._cursor

    def spy(*arguments: Any) -> Any:
        cursor = open_cursor(*arguments)
        cursors.append(type(cursor).__name__)
        return cursor

    monkeypatch.setattr(results, "_cursor", spy)
    tracemalloc.start()
    seen = sum(1 for one in results.stream(database, large) if one.text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == count
    # All of it is 24 MB; a fetch of 2,000 rows is 8.
    assert peak < 18_000_000
    # What the driver of PostgreSQL holds is not Python's memory: only a cursor bounds it.
    assert cursors == ["ServerCursor" if database.dialect == "postgresql" else "Cursor"]


def test_given_a_reader_that_takes_its_time_when_streamed_then_postgresql_waits_for_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers may not be silent for long within a transaction; who pages through results may."""
    monkeypatch.setattr("db.settings._SILENCE", 0.0)
    patient = Database(Settings(database_url=postgres_url, lease=2))
    batch = a_batch(patient, 4, invalid=(1, 2, 3))
    stream = results.stream(patient, batch)
    next(stream)
    time.sleep(2.2)  # longer than a writer may be silent
    assert len(list(stream)) == 2
    with pytest.raises(DatabaseError, match="idle-in-transaction"):
        _write_slowly(patient)
    patient.close()


def _write_slowly(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("SELECT 1"))
        time.sleep(2.2)
        connection.execute(text("SELECT 1"))


def test_given_lines_with_parameters_when_streamed_then_each_tells_its_seed_and_all_in_force(
    database: Database,
) -> None:
    batch = a_batch(database, 4, chunk_size=4, invalid=[4], params={"top_k": 5})
    worker = a_worker(database)
    requests = {
        1: {"prompt": 'a text with "params":{"top_k":9} in it'},
        2: {"prompt": "x", "params": {"seed": 2**62 + 1, "max_tokens": 3}},
        3: {"messages": [{"role": "user", "content": "y"}], "params": {"max_length": 9}},
    }
    with database.write() as connection:
        for line, request in requests.items():
            connection.execute(
                update(job_table)
                .where(job_table.c.batch_id == batch.key, job_table.c.line == line)
                .values(request=orjson.dumps(request).decode())
            )
    (claim,) = claims(database, worker)
    with database.write() as connection:
        outcomes.record(connection, [succeeded(claim, line) for line in (1, 2, 3)], worker=worker)
    first, second, third, invalid = results.stream(database, batch, order="input")
    told = [orjson.loads(one.params or "") for one in (first, second, third)]
    assert [one["top_k"] for one in told] == [5, 5, 5]
    assert [one.get("max_tokens") for one in told] == [128, 3, None]
    assert told[2]["max_length"] == 9
    assert [first.seed, second.seed] == [seed_of(batch.id, 1), 2**62 + 1]
    assert (invalid.seed, invalid.params) == (None, None)
    for result, params in zip((first, second, third), told, strict=True):
        with database.read() as connection:
            job = jobs.get_job(connection, batch.id, result.line)
        assert (job.seed, job.params) == (result.seed, params)
        assert job.provenance is not None
        assert job.provenance.dtype == "float32"
    with database.read() as connection:
        bad = jobs.get_job(connection, batch.id, 4)
    assert (bad.seed, bad.params, bad.provenance) == (None, None, None)


@pytest.mark.parametrize("mode", Mode)
def test_given_a_mode_when_streamed_then_its_measure_is_there_and_the_others_are_not(
    database: Database, mode: Mode
) -> None:
    batch = a_batch(database, 2, chunk_size=2, invalid=[2], mode=mode)
    worker = a_worker(database)
    (claim,) = claims(database, worker)
    sample = {
        Mode.GENERATE: SampleRow("text", "stop", 3),
        Mode.SCORE: SampleRow(None, None, 3, logprob=-2.5),
        Mode.EMBED: SampleRow(None, None, 0, embedding=pack(array("f", [1.0, -0.5]), "float16")),
    }[mode]
    outcome = succeeded(claim, 1)._replace(samples=(sample,))
    with database.write() as connection:
        outcomes.record(connection, [outcome], worker=worker)
    for with_request in (False, True):
        found, invalid = results.stream(database, batch, with_request=with_request)
        assert found.logprob == (-2.5 if mode is Mode.SCORE else None)
        vector = found.embedding
        assert (None if vector is None else list(vector)) == (
            [1.0, -0.5] if mode is Mode.EMBED else None
        )
        assert (found.request is None) is not with_request
        assert (found.seed is None) is (mode is not Mode.GENERATE)
        assert set(orjson.loads(found.params or "")) <= set(MODELS[mode].model_fields)
        assert (invalid.logprob, invalid.embedding) == (None, None)
        assert invalid.error_code == "invalid_request"
    with database.read() as connection:
        job = jobs.get_job(connection, batch.id, 1)
    assert (job.mode, job.seed) == (mode, found.seed)


@pytest.mark.parametrize("with_request", [False, True])
def test_input_row_comes_back_with_its_results(database: Database, with_request: bool) -> None:
    columns = (InputColumn("id", "int64"), InputColumn("note", "string"), InputColumn("x", "json"))
    rows = {1: '["007","a\\tb\\\\ \\u0000"]', 2: '{"0":9223372036854775807,"2":["[1.10]"]}'}
    batch = a_batch(database, 3, invalid=[2, 3], input_columns=columns, rows=rows)
    assert batch.input_columns == columns
    worker = a_worker(database)
    (claim,) = claims(database, worker)
    with database.write() as connection:
        outcomes.record(connection, [succeeded(claim, 1, "a", "b")], worker=worker)
    found = list(results.stream(database, batch, with_request=with_request))
    assert [result.columns for result in found] == [
        [7, "a\tb\\ \0", ABSENT],
        [7, "a\tb\\ \0", ABSENT],
        [2**63 - 1, ABSENT, "[1.10]"],
        None,
    ]
    assert [result.request is not None for result in found] == [with_request] * 4
