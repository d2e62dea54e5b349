"""Logs for people and programs: a message, then `key=value` of the ids that it is about.

Never a prompt's text above DEBUG, never a secret.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery.exceptions import Reject

from worker.broker_outages import CONNECTED_LOGGER, BrokerOutages

#: Attributes of every record; the rest was given by `extra`.
_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "data"}

#: Loggers that tell at INFO what a worker's own lines tell better.
_CHATTY = (
    "celery", "kombu", "alembic", "transformers", "httpx", "httpx2", "openai", "filelock",
    "urllib3",
)  # fmt: skip


class KeyValueFormatter(logging.Formatter):
    """`2026-01-31 12:00:00 INFO chunk claimed action=claim chunk=7`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        pairs = " ".join(
            f"{key}={value}" for key, value in vars(record).items() if key not in _PLAIN
        )
        line = super().format(record)
        return f"{line} {pairs}" if pairs else line


def _is_noise(record: logging.LogRecord) -> bool:
    """Celery's traceback of a chunk that was handed back, which our own line tells; and its
    advice to cancel tasks when Redis goes away, which the database's leases make wrong.
    """
    error = record.exc_info[1] if record.exc_info else None
    advice = record.name == "py.warnings" and "CPendingDeprecationWarning" in record.getMessage()
    return isinstance(error, Reject) or advice


def configure(level: str, **_: Any) -> None:
    """Log to standard error at this level; libraries at WARNING unless it is DEBUG."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    handler.addFilter(lambda record: not _is_noise(record))
    if level != "DEBUG":
        handler.addFilter(BrokerOutages())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
    logging.getLogger(CONNECTED_LOGGER).setLevel(level)
