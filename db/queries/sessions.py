"""End sessions of PostgreSQL whose client stands still in the middle of a transaction.

Its `idle_in_transaction_session_timeout` ends most of them. It does not count (PostgreSQL 15) the
silence in the middle of a pipeline or of a COPY, nor after psycopg's `executemany`, which ends
with Sync and Flush: a worker that freezes there would keep its locks until it goes on.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from db.database import APPLICATION

#: How much longer a client may take that PostgreSQL waits for in the middle of a statement: it
#: may be sending, slowly.
_SENDING = 4

#: Whoever has a `backend_xid` has written or locked something; mere readers have none.
_END = text(
    """
    SELECT pg_terminate_backend(pid)
    FROM pg_stat_activity
    WHERE datname = current_database()
      AND usename = current_user
      AND application_name = :application
      AND pid <> pg_backend_pid()
      AND wait_event = 'ClientRead'
      AND backend_xid IS NOT NULL
      AND extract(epoch FROM clock_timestamp() - state_change)
          > CASE state WHEN 'active' THEN :silence * :sending ELSE :silence END
    """
)


def end_silent(connection: Connection, silence: float) -> int:
    """Take the locks from those who were silent for `silence` seconds; how many there were.

    On SQLite nothing can: a writer that stands still holds the file.
    """
    if connection.dialect.name != "postgresql":
        return 0
    found = connection.execute(
        _END, {"application": APPLICATION, "silence": silence, "sending": _SENDING}
    )
    return sum(found.scalars())
