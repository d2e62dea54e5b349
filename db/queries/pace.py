"""How fast a batch goes now, and who works on it: one small query, however large the batch."""

from __future__ import annotations

from sqlalchemy import Connection, case, func, select

from db.clock import db_now
from db.records import Batch, Pace
from db.schema import chunks, workers
from db.states import ChunkState


def pace(connection: Connection, batch: Batch, *, within: float) -> Pace:
    """Of the workers with a heartbeat in the last `within` seconds.

    A worker with chunks of several batches gives this one its share of them.
    """
    ours = func.sum(case((chunks.c.batch_id == batch.key, 1), else_=0))
    leased = (
        select(chunks.c.worker_id, func.count().label("leased"), ours.label("ours"))
        .where(chunks.c.state == ChunkState.RUNNING)
        .group_by(chunks.c.worker_id)
        .subquery()
    )
    rows = connection.execute(
        select(
            db_now().label("now"),
            workers.c.in_flight,
            workers.c.capacity,
            workers.c.tokens_per_second,
            workers.c.stops_at,
            leased.c.leased,
            leased.c.ours,
        )
        .join(leased, leased.c.worker_id == workers.c.id, isouter=True)
        .where(
            workers.c.queue == batch.queue,
            workers.c.stopped_at.is_(None),
            workers.c.heartbeat_at > db_now() - within,
        )
    ).all()
    now = rows[0].now if rows else connection.execute(select(db_now())).scalar_one()
    busy = [(row, row.ours / row.leased) for row in rows if row.ours]
    ends = [row.stops_at for row, _ in busy if row.stops_at is not None]
    return Pace(
        now=now,
        serving=sum(row.stops_at is None for row in rows),
        working=len(busy),
        running=round(sum(min(row.in_flight, row.capacity) * share for row, share in busy)),
        tokens_per_second=sum(row.tokens_per_second * share for row, share in busy),
        stops_at=max(ends) if ends and len(ends) == len(busy) else None,
    )
