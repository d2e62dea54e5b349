"""Who works: the workers alive, and queues that wait for one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from db.database import Database
from db.ids import queue_name
from db.queries import chunks as chunk_queries
from db.queries import workers as worker_queries
from db.records import Worker
from db.schema import REVISIONS
from db.settings import Settings
from db.wording import count_of
from producer.activity import worker_command
from producer.doctor.check import Check
from producer.doctor.storage import database_file
from producer.model_files import canonical_model


def queue_checks(settings: Settings, model: str | None) -> Iterator[Check]:
    """Nothing where there is no current schema yet. Raises DatabaseError."""
    file = database_file(settings)
    if file is not None and not file.exists():
        return
    with closing(Database(settings, pool_size=1)) as database:
        if database.revision() != REVISIONS[-1]:
            return
        with database.read() as connection:
            alive = worker_queries.alive(connection, within=settings.lease)
            waiting = chunk_queries.waiting(connection)
    yield worker_check(alive, canonical_model(model) if model is not None else None)
    served = {worker.queue for worker in alive if worker.stops_at is None}
    for queue, name, count in waiting:
        if queue not in served:
            waits = "waits" if count == 1 else "wait"
            yield Check(
                "queue",
                "error",
                f"{count_of(count, 'chunk')} {waits} for {name}, and no worker serves it",
                _start(name),
            )


def worker_check(alive: Sequence[Worker], model: str | None) -> Check:
    """The workers alive, of all queues or of one model's."""
    if model is not None:
        alive = [worker for worker in alive if worker.queue == queue_name(model)]
    whose = "" if model is None else f" for {model}"
    if not alive:
        advice = None if model is None else _start(model)
        return Check("workers", "ok" if model is None else "warning", f"none alive{whose}", advice)
    shown = ", ".join(f"{worker.name} on {worker.device}" for worker in alive[:5])
    more = f" and {len(alive) - 5} more" if len(alive) > 5 else ""
    return Check("workers", "ok", f"{len(alive)} alive{whose}: {shown}{more}")


def _start(model: str) -> str:
    return f"start one: {worker_command(model)}"
