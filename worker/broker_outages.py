"""Celery's lines about a Redis that is away, in our form: one where it goes, one where it is back.

Celery logs each try to connect, several lines long and at ERROR. A worker needs no Redis to go
on, as it finds its work in the database.
"""

from __future__ import annotations

import logging

#: Celery's logger, and how its lines begin that say where the connection stands.
_CONSUMER = "celery.worker.consumer"
_LOST = ("consumer: Connection to broker lost", "consumer: Cannot connect to ")
_BACK = "Connected to "

#: The one that says that the connection is there.
CONNECTED_LOGGER = f"{_CONSUMER}.connection"

_AWAY_ACTION = "broker_away"


class BrokerOutages(logging.Filter):
    """Lets one line of an outage pass, translated."""

    def __init__(self) -> None:
        super().__init__()
        self._away = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; it may be another one then."""
        if getattr(record, "action", None) == _AWAY_ACTION:
            self._away = True
        if not record.name.startswith(_CONSUMER):
            return True
        message = record.getMessage()
        if message.startswith(_LOST):
            first, self._away = not self._away, True
            _rewrite(
                record,
                logging.WARNING,
                "Redis can't be reached: until it answers, work comes from the database alone",
                _AWAY_ACTION,
            )
            return first
        if message.startswith(_BACK):
            back, self._away = self._away, False
            _rewrite(record, logging.INFO, "Redis answers again", "broker_back")
            return back
        return True


def _rewrite(record: logging.LogRecord, level: int, text: str, action: str) -> None:
    record.levelno, record.levelname = level, logging.getLevelName(level)
    record.msg, record.args = text, None
    record.exc_info = record.exc_text = record.stack_info = None
    record.__dict__["action"] = action
