"""A cancel whose producer died half-way is brought to its end."""

from __future__ import annotations

from sqlalchemy import Connection

from db.queries import recovery


def run(connection: Connection) -> int:
    """How many batches were settled."""
    return recovery.finish_cancels(connection)
