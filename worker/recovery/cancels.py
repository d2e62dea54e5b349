"""A cancel whose producer died half-way is brought to its end."""

from __future__ import annotations

from db.database import Database
from db.queries import recovery, steering


def run(database: Database) -> int:
    """How many batches there were to settle."""
    with database.read() as connection:
        begun = recovery.cancelling(connection)
    for key in begun:
        with database.write() as connection:
            steering.finish_cancel(connection, key)
    return len(begun)
