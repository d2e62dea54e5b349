"""Logs: a message and the ids that it is about; never a secret, never a prompt."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from db.database import Database
from db.errors import DatabaseUnavailable
from db.migrate import ready
from db.settings import Settings
from worker.logs import KeyValueFormatter, configure


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("celery", "kombu", "alembic", "transformers", "httpx", "filelock", "urllib3"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def formatted(message: str, *arguments: object, **extra: object) -> str:
    record = logging.getLogger("test").makeRecord(
        "test", logging.INFO, "f", 1, message, arguments, None, extra=extra or None
    )
    return KeyValueFormatter().format(record)


def test_given_a_record_with_ids_when_formatted_then_they_follow_as_key_value() -> None:
    line = formatted("claimed %d jobs", 3, action="claim", chunk=7, batch="b1")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO claimed 3 jobs action=claim chunk=7 batch=b1", line
    )


def test_given_a_record_without_ids_when_formatted_then_nothing_follows() -> None:
    assert formatted("hello").endswith(" INFO hello")


@pytest.mark.usefixtures("logging_as_before")
def test_given_the_level_info_when_configured_then_libraries_are_quiet_and_we_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("INFO")
    logging.getLogger("worker.mill").info("ours", extra={"action": "x"})
    logging.getLogger("worker.mill").debug("the text of a prompt")
    logging.getLogger("celery.worker").info("theirs")
    logging.getLogger("kombu").warning("their warning")
    written = capsys.readouterr()
    assert written.out == ""
    lines = written.err.splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "INFO ours action=x",
        "WARNING their warning",
    ]


@pytest.mark.usefixtures("logging_as_before")
def test_given_the_level_debug_when_configured_then_libraries_speak_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("DEBUG")
    logging.getLogger("celery.worker").debug("theirs")
    assert "DEBUG theirs" in capsys.readouterr().err


def test_given_a_database_that_can_not_be_reached_when_it_is_logged_then_no_password_is() -> None:
    url = "postgresql+psycopg://me:hunter2@127.0.0.1:1/db"
    with pytest.raises(DatabaseUnavailable) as failure:
        ready(Database(Settings(database_url=url)))
    line = formatted("results wait: %s", failure.value.message, action="flush_waits")
    assert "me:***@127.0.0.1" in line
    assert "hunter2" not in line
    assert line.endswith(" action=flush_waits")
