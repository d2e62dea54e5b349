"""Workers: who is alive, on what, how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from db.clock import db_now
from db.records import ServedModel, Worker
from db.schema import jobs, workers
from db.states import JobState

_COLUMNS = [workers.c[field.name] for field in fields(Worker) if field.name != "silent_for"]


def register(connection: Connection, values: Mapping[str, Any]) -> int:
    """A worker has started; its key. Its row stays for good: results refer to it."""
    statement = insert(workers).values(**values, started_at=db_now(), heartbeat_at=db_now())
    return int(connection.execute(statement.returning(workers.c.id)).scalar_one())


def identify(connection: Connection, key: int, weights: str) -> None:
    """The digest of the weights that the worker loaded is known now."""
    connection.execute(update(workers).where(workers.c.id == key).values(weights=weights))


def beat(
    connection: Connection,
    key: int,
    values: Mapping[str, Any],
    *,
    stops_within: float | None = None,
) -> None:
    """A heartbeat, with the worker's counters.

    `stops_within`: seconds that a worker that is shutting down has left, counted from the first
    heartbeat that says so.
    """
    statement = update(workers).where(workers.c.id == key)
    if stops_within is not None:
        stops_at = func.coalesce(workers.c.stops_at, db_now() + stops_within)
        statement = statement.values(stops_at=stops_at)
    connection.execute(statement.values(**values, heartbeat_at=db_now()))


def stop(connection: Connection, key: int) -> None:
    """The worker has ended."""
    connection.execute(
        update(workers)
        .where(workers.c.id == key)
        .values(stopped_at=db_now(), in_flight=0, tokens_per_second=0)
    )


def find(connection: Connection, name: str) -> int | None:
    """The key of the worker of this name; None: none has registered under it."""
    return connection.execute(select(workers.c.id).where(workers.c.name == name)).scalar()


def served_models(connection: Connection, batch: int) -> list[ServedModel]:
    """What made the results of a batch, a record a worker, oldest first."""
    makers = (
        select(jobs.c.worker_id)
        .where(jobs.c.batch_id == batch, jobs.c.state == JobState.SUCCEEDED)
        .distinct()
    )
    query = select(
        workers.c.name, workers.c.engine, workers.c.revision, workers.c.weights,
        workers.c.tokenizer, workers.c.adapters, workers.c.started_at,
    ).where(workers.c.id.in_(makers)).order_by(workers.c.id)  # fmt: skip
    return [ServedModel(*row) for row in connection.execute(query)]


def alive(connection: Connection, *, within: float, queue: str | None = None) -> list[Worker]:
    """Workers heard of in the last `within` seconds that have not stopped."""
    silence = (db_now() - workers.c.heartbeat_at).label("silent_for")
    query = select(*_COLUMNS, silence).where(
        workers.c.stopped_at.is_(None), workers.c.heartbeat_at > db_now() - within
    )
    if queue is not None:
        query = query.where(workers.c.queue == queue)
    return [Worker(**row._asdict()) for row in connection.execute(query.order_by(workers.c.id))]
