"""Delete a batch with all its rows, in transactions of bounded size."""

from __future__ import annotations

from sqlalchemy import delete, func, select

from db.database import Database
from db.queries.batches import SLICE
from db.schema import attempts, batches, chunks, jobs, results


def delete_batch(database: Database, key: int) -> None:
    """Idempotent: one that was interrupted is taken up again by the next call.

    The batch's own row goes last, so that a half-deleted batch is still found.
    """
    while _delete_slice(database, key):
        pass
    with database.write() as connection:
        connection.execute(delete(chunks).where(chunks.c.batch_id == key))
        connection.execute(delete(batches).where(batches.c.id == key))


def _delete_slice(database: Database, key: int) -> bool:
    """Delete the last lines; whether there were any."""
    with database.write() as connection:
        last = connection.execute(
            select(func.max(jobs.c.line)).where(jobs.c.batch_id == key)
        ).scalar_one()
        if last is None:
            return False
        for table in (results, attempts, jobs):
            connection.execute(
                delete(table).where(table.c.batch_id == key, table.c.line > last - SLICE)
            )
    return True
