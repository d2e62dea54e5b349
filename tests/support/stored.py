"""Batches, workers and outcomes in a real database, in a line each."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, select, update

from db.database import Database
from db.ids import new_uid
from db.input_columns import InputColumn
from db.modes import Mode
from db.queries import batches, chunks, jobs, workers
from db.queries.jobs import NewJob
from db.queries.outcomes import JobOutcome, SampleRow
from db.records import Batch, Claim
from db.schema import batches as batch_table
from db.schema import chunks as chunk_table
from db.schema import jobs as job_table
from db.states import ChunkState, JobState

#: Seconds: no test lasts so long.
LEASE = 600.0
QUEUE = "promptmill.test"
MODEL = "test/model"


def a_batch(
    database: Database,
    total: int = 8,
    *,
    chunk_size: int = 4,
    invalid: Sequence[int] = (),
    prompts: Mapping[int, str] | None = None,
    priority: int = 5,
    queue: str = QUEUE,
    model: str = MODEL,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    mode: Mode = Mode.GENERATE,
    uid: str | None = None,
    input_columns: Sequence[InputColumn] = (),
    rows: Mapping[int, str] | None = None,
) -> Batch:
    """An activated batch of `total` lines; those in `invalid` are failed already.

    `rows`: the stored values of `input_columns`, by line.

    `uid`: for tests that depend on the jobs' seeds, which are made of it.
    """
    uid = uid or new_uid()
    with database.write() as connection:
        key = batches.create(
            connection,
            uid=uid,
            name=name,
            model=model,
            queue=queue,
            priority=priority,
            params=params or {},
            metadata={},
            chunk_size=chunk_size,
            mode=mode,
        )
        texts = prompts or {}
        new = [
            NewJob(
                line,
                orjson.dumps({"prompt": texts.get(line, f"prompt {line}")}).decode(),
                error="it is bad" if line in invalid else None,
                columns=(rows or {}).get(line),
            )
            for line in range(1, total + 1)
        ]
        jobs.insert_slice(connection, key, new, now=1.0)
        batches.activate(
            connection,
            key,
            total=total,
            failed=len(invalid),
            digest=f"digest of {uid}",
            idempotency_key=idempotency_key,
            input_columns=input_columns,
        )
        return batches.get(connection, uid)


def a_worker(database: Database, *, queue: str = QUEUE, **values: Any) -> int:
    """A registered worker; its key."""
    given = {
        "name": f"host:{secrets.token_hex(6)}",
        "host": "host",
        "pid": 1,
        "queue": queue,
        "engine": "echo",
        "engine_version": "1",
        "model": MODEL,
        "revision": "abc",
        "device": "cpu",
        "dtype": "float32",
        "parameters": 0,
        "capacity": 4,
        **values,
    }
    with database.write() as connection:
        return workers.register(connection, given)


def a_claim(
    database: Database, worker: int, *, queue: str = QUEUE, lease: float = LEASE
) -> Claim | None:
    """The most urgent chunk of the queue, claimed."""
    with database.write() as connection:
        return chunks.claim_next(connection, queue, worker=worker, lease=lease)


def claims(database: Database, worker: int, *, queue: str = QUEUE) -> list[Claim]:
    """Every chunk that waits, claimed."""
    found = []
    while (claim := a_claim(database, worker, queue=queue)) is not None:
        found.append(claim)
    return found


def expire(database: Database, chunk: int) -> None:
    """Let the chunk's lease be over, if it has one."""
    leased = (chunk_table.c.id == chunk) & (chunk_table.c.state == ChunkState.RUNNING)
    with database.write() as connection:
        connection.execute(update(chunk_table).where(leased).values(lease_expires_at=1.0))


def succeeded(claim: Claim, line: int, *texts: str, token: str | None = None) -> JobOutcome:
    """The job has generated `texts` of two tokens each, after three tokens of prompt."""
    return JobOutcome(
        chunk=claim.chunk,
        token=token or claim.token,
        batch=claim.batch,
        line=line,
        state=JobState.SUCCEEDED,
        started_at=2.0,
        prompt_tokens=3,
        samples=tuple(SampleRow(one, "stop", 2) for one in texts or (f"text {line}",)),
    )


def failed(claim: Claim, line: int, *, again: bool = False) -> JobOutcome:
    """The job has failed, for good or to be tried `again`."""
    return JobOutcome(
        chunk=claim.chunk,
        token=claim.token,
        batch=claim.batch,
        line=line,
        state=JobState.QUEUED if again else JobState.FAILED,
        error_code="broken",
        error_message="it broke",
    )


def recount(connection: Connection, batch: int) -> Counter[str]:
    """How many jobs of the batch are stored in which state."""
    return Counter(
        connection.execute(select(job_table.c.state).where(job_table.c.batch_id == batch)).scalars()
    )


def counters(connection: Connection, batch: int) -> Counter[str]:
    """What the batch's own row says of its finished jobs."""
    names = ("succeeded", "failed", "cancelled", "expired")
    row = connection.execute(
        select(*(batch_table.c[name] for name in names)).where(batch_table.c.id == batch)
    ).one()
    return Counter({name: count for name, count in zip(names, row, strict=True) if count})


def chunk_states(database: Database, batch: int) -> list[str]:
    """The states of the batch's chunks, oldest first."""
    with database.read() as connection:
        return list(
            connection.execute(
                select(chunk_table.c.state)
                .where(chunk_table.c.batch_id == batch)
                .order_by(chunk_table.c.id)
            ).scalars()
        )


def batch_now(database: Database, batch: Batch) -> Batch:
    with database.read() as connection:
        return batches.get(connection, batch.id)
