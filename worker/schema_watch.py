"""A worker whose schema was changed under it stops: it would read and write what it can't know."""

from __future__ import annotations

import logging
from collections.abc import Callable

from db.database import Database
from db.schema import REVISIONS

logger = logging.getLogger(__name__)


class SchemaWatch:
    """Looks at the schema's revision; `look` fits a Pulse."""

    def __init__(self, database: Database, *, interval: float, leave: Callable[[], object]) -> None:
        """`leave` has the worker finish and end. `interval` is in seconds."""
        self._database = database
        self._interval = interval
        self._leave = leave
        self._left = False

    def look(self) -> float:
        """Leave, once, if the schema is not this program's; the seconds until the next look."""
        found = self._database.revision()
        if found != REVISIONS[-1] and not self._left:
            self._left = True
            logger.error(
                "the database's schema is %s by now, and this worker knows %s: it stops. "
                "Install the promptmill of that schema, and start it again",
                found,
                REVISIONS[-1],
                extra={"action": "schema_changed"},
            )
            self._leave()
        return self._interval
