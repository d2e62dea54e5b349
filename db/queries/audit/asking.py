"""Ask every invariant in one snapshot, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, func, select, text

from db.clock import db_now
from db.database import AnyRow
from db.queries import batches as batch_queries
from db.queries.audit.leases import UNATTENDED
from db.queries.audit.question import OVERDUE, Invariant, Scope, Thing, Violation
from db.queries.audit.registry import INVARIANTS
from db.schema import batches

_EXAMPLES = 5
#: What one sort of PostgreSQL's may take before it goes to disk.
_SORT_MEMORY = "64MB"


def audit(
    connection: Connection, *, batch: str | None = None, overdue: float = OVERDUE
) -> list[Violation]:
    """Every invariant that does not hold, of one batch or of all; see `findings`."""
    found = findings(connection, batch=batch, overdue=overdue)
    return [violation for _, violation in found if violation is not None]


def findings(
    connection: Connection, *, batch: str | None = None, overdue: float = OVERDUE
) -> Iterator[tuple[Invariant, Violation | None]]:
    """Each invariant with what breaks it, as soon as it is known.

    The connection must be fresh: on PostgreSQL its transaction becomes one read-only snapshot.
    `overdue`: seconds after its end within which recovery must have noticed a lease. Raises
    NotFoundError for an unknown batch.
    """
    scope = _scope(connection, batch, overdue)
    for invariant in INVARIANTS:
        yield invariant, _ask(connection, invariant, scope)


def unattended(
    connection: Connection, *, batch: str | None = None, overdue: float = OVERDUE
) -> Violation | None:
    """Chunks of dead workers that nobody puts back, as no worker is alive: no promise broken."""
    return _ask(connection, UNATTENDED, _scope(connection, batch, overdue))


def _scope(connection: Connection, batch: str | None, overdue: float) -> Scope:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        connection.execute(text(f"SET LOCAL work_mem = '{_SORT_MEMORY}'"))
    # The first look at a table fixes the snapshot, and this is its time: by the end of a long
    # audit the clock is further on, and leases of the snapshot only look as if they were over.
    first = select(func.max(batches.c.id)).scalar_subquery()
    now = connection.execute(select(db_now(), first)).one()[0]
    key = None if batch is None else batch_queries.get(connection, batch).key
    return Scope(connection.dialect.name, now, key, overdue)


def _ask(connection: Connection, invariant: Invariant, scope: Scope) -> Violation | None:
    broken = invariant.broken(scope).subquery("broken")
    rows = connection.execute(
        select(broken.c.batch_id, broken.c.item, batches.c.uid, func.count().over().label("number"))
        .select_from(broken.join(batches, batches.c.id == broken.c.batch_id, isouter=True))
        .order_by(broken.c.batch_id, broken.c.item)
        .limit(_EXAMPLES)
    ).all()
    if not rows:
        return None
    return Violation(
        name=invariant.name,
        promise=invariant.promise,
        thing=invariant.thing,
        count=rows[0].number,
        examples=tuple(_example(invariant.thing, row) for row in rows),
        advice=invariant.advice,
    )


def _example(thing: Thing, row: AnyRow) -> str:
    batch = row.uid if row.uid is not None else f"no batch (batch_id {row.batch_id})"
    if thing == "batch":
        return str(batch)
    if thing == "chunk":
        return f"chunk {row.item} of {batch}"
    return f"{batch}-{row.item}" if row.uid is not None else f"line {row.item} of {batch}"
