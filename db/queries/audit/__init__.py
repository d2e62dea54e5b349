"""What must hold of the tables at every moment, asked of a live database.

    with database.read() as connection:
        assert audit(connection) == []

Each invariant is one query over whole tables, so that ten million jobs take minutes and no
memory; `db.queries.audit.registry` has them in order. Nothing is locked and nothing changed.
"""

from db.queries.audit.asking import audit, findings, unattended
from db.queries.audit.question import OVERDUE, Invariant, Violation

__all__ = ["OVERDUE", "Invariant", "Violation", "audit", "findings", "unattended"]
