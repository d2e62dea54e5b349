"""The audit: whether the database keeps promptmill's promises, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial

from db.database import Database
from db.queries.audit import Invariant, Violation, findings, unattended
from db.schema import REVISIONS
from db.settings import Settings
from db.wording import count_of
from producer.doctor.check import Check, carried_out
from producer.doctor.storage import database_file, storage_checks
from producer.references import resolve

#: Leases after whose end nobody can have overlooked them.
_LEASES = 10


def audit_database(settings: Settings, *, batch: str | None = None) -> Iterator[Check]:
    """The database, then each invariant on all of it, or on one batch; never raises.

    Workers may run meanwhile: it is one snapshot, which locks nothing.
    """
    yield from carried_out("database", partial(storage_checks, settings))
    yield from carried_out("audit", partial(_audit_checks, settings, batch))


def _audit_checks(settings: Settings, batch: str | None) -> Iterator[Check]:
    """Nothing where there is no current schema. Raises DatabaseError, NotFoundError."""
    file = database_file(settings)
    if file is not None and not file.exists():
        return
    with closing(Database(settings, pool_size=1)) as database:
        if database.revision() != REVISIONS[-1]:
            return
        overdue = _LEASES * settings.lease
        # Apart from the snapshot, which has to be a transaction's first query.
        with database.read() as connection:
            uid = None if batch is None else resolve(connection, batch).uid
        with database.read() as connection:
            for invariant, violation in findings(connection, batch=uid, overdue=overdue):
                yield audit_check(invariant, violation)
            dead = unattended(connection, batch=uid, overdue=overdue)
            if dead is not None:
                yield Check(f"audit: {dead.name}", "warning", _places(dead), dead.advice)


def audit_check(invariant: Invariant, violation: Violation | None) -> Check:
    name = f"audit: {invariant.name}"
    if violation is None:
        return Check(name, "ok", invariant.promise)
    return Check(name, "error", _places(violation), violation.advice)


def _places(violation: Violation) -> str:
    shown = ", ".join(violation.examples)
    more = ", …" if violation.count > len(violation.examples) else ""
    return f"{_things(violation)} against '{violation.promise}': {shown}{more}"


def _things(violation: Violation) -> str:
    if violation.thing == "batch":
        return "1 batch" if violation.count == 1 else f"{violation.count:,} batches"
    return count_of(violation.count, violation.thing)
