"""Celery says at length that Redis is away; a worker's log says it once, in a line."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from worker.logs import configure

CONSUMER = logging.getLogger("celery.worker.consumer.consumer")
CONNECTION = logging.getLogger("celery.worker.consumer.connection")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("celery", CONNECTION.name)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def outage() -> None:
    CONSUMER.warning("%s (%r)", "consumer: Connection to broker lost. Trying …", "network")
    for number in range(3):
        CONSUMER.error("consumer: Cannot connect to %s: %s.\n%s\n", "redis://h", "no", number)


def logged(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split(" ", 2)[2] for line in capsys.readouterr().err.splitlines()]


AWAY = "WARNING Redis can't be reached: until it answers, work comes from the database alone"


def test_each_outage_is_logged_once_and_so_is_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO")
    CONNECTION.info("Connected to %s", "redis://h")
    for _ in range(2):
        outage()
        CONNECTION.info("Connected to %s", "redis://h")
    once = [f"{AWAY} action=broker_away", "INFO Redis answers again action=broker_back"]
    assert logged(capsys) == once * 2


def test_outage_that_we_have_logged_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO")
    logging.getLogger("worker.bootstep").warning("it is away", extra={"action": "broker_away"})
    outage()
    assert logged(capsys) == ["WARNING it is away action=broker_away"]


def test_other_lines_of_the_consumer_stay(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO")
    CONSUMER.error("something else")
    assert logged(capsys) == ["ERROR something else"]
