"""A command or a worker that begins while a service is away: it waits, says so once, goes on."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import pytest
import redis

from tests.acceptance.mill import Mill
from tests.support.processes import eventually
from tests.support.servers import PrivatePostgres, PrivateRedis

_AWAY = {"own_redis": "can't reach Redis", "own_postgres": "can't use database"}


@pytest.fixture(params=_AWAY)
def away(request: pytest.FixtureRequest) -> tuple[str, Callable[[], None]]:
    """A server that does not run: how a message about it begins, and how to start it."""
    server: PrivateRedis | PrivatePostgres = request.getfixturevalue(request.param)
    server.kill()
    return _AWAY[request.param], server.start


def test_given_a_service_that_is_away_when_submitting_then_it_waits_and_submits(
    mill: Mill, away: tuple[str, Callable[[], None]]
) -> None:
    words, start = away
    command = mill.background("submit", mill.numbered(3), "--model", mill.model)
    assert command.stderr is not None
    said = command.stderr.readline()
    assert said.startswith(words)
    # Of five minutes, it may have used some to find out.
    assert re.search(r"waiting for it, for up to (300|2\d\d) s$", said, re.MULTILINE), said
    start()
    stdout, stderr = command.communicate(timeout=60)
    back, missing = stderr.splitlines()
    assert (command.returncode, back) == (0, "it is back: going on")
    assert missing.startswith("no worker serves it yet; start one: ")
    assert mill.client.batch(stdout.strip()).total == 3


def test_given_a_database_that_is_away_when_run_and_watched_then_both_end_well(
    mill: Mill, own_postgres: PrivatePostgres
) -> None:
    batch = mill.submit(3)
    own_postgres.kill()
    watch = mill.background("watch", batch)
    run = mill.background("run", mill.numbered(4, "others.txt"), "--model", mill.model)
    for command in (watch, run):
        assert command.stderr is not None
        assert "waiting for it" in command.stderr.readline()
    own_postgres.start()
    mill.worker()
    for command in (watch, run):
        _, stderr = command.communicate(timeout=60)
        assert command.returncode == 0, stderr


def test_given_a_database_that_is_away_when_a_worker_starts_then_it_waits_and_works(
    mill: Mill, own_postgres: PrivatePostgres
) -> None:
    batch = mill.submit(3)
    own_postgres.kill()
    worker = mill.start_worker()
    eventually(lambda: "waiting for it" in worker.said(), what="it waits")
    own_postgres.start()
    mill.finished(batch)
    assert worker.said().count("waiting for it") == 1


def test_given_a_worker_that_waits_for_its_database_when_told_to_stop_then_it_ends(
    mill: Mill, own_postgres: PrivatePostgres
) -> None:
    own_postgres.kill()
    worker = mill.start_worker()
    eventually(lambda: "waiting for it" in worker.said(), what="it waits")
    worker.signal(signal.SIGINT)
    assert worker.ended() == 130
    assert "Traceback" not in worker.said()


def test_given_a_patience_of_nothing_when_a_service_is_away_then_it_is_told_at_once(
    mill: Mill, away: tuple[str, Callable[[], None]]
) -> None:
    words, start = away
    done = mill.run(
        "submit", mill.numbered(3), "--model", mill.model, env={"PROMPTMILL_PATIENCE": "0"}
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"promptmill: {words}")
    start()
    assert mill.client.batches() == []


@pytest.mark.parametrize(
    ("setting", "given", "says"),
    [
        ("DATABASE_URL", ("/postgres", "/nowhere"), "does not exist"),
        ("DATABASE_URL", ("marker", "wrong"), "authentication failed"),
        ("DATABASE_URL", ("127.0.0.1", "nowhere.invalid"), "nowhere.invalid"),
        ("BROKER_URL", ("/0", "/999"), "DB index"),
        ("BROKER_URL", ("://", "://:wrong@"), "password"),
        ("BROKER_URL", ("127.0.0.1", "nowhere.invalid"), "nowhere.invalid"),
    ],
)
def test_given_a_service_that_refuses_when_submitting_then_nobody_waits(
    setting: str,
    given: tuple[str, str],
    says: str,
    mill: Mill,
    request: pytest.FixtureRequest,
) -> None:
    url = given[1].join(mill.env[f"PROMPTMILL_{setting}"].rsplit(given[0], 1))
    if says == "password":
        protect(request.getfixturevalue("own_redis"), request)
    env = {f"PROMPTMILL_{setting}": url}
    done = mill.run("submit", mill.numbered(3), "--model", mill.model, env=env)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert says in line


def protect(server: PrivateRedis, request: pytest.FixtureRequest) -> None:
    """Have it ask for a password until the test ends."""
    with server.client() as client:
        client.config_set("requirepass", "right")

    def open_again() -> None:
        with redis.Redis.from_url(server.url, password="right") as client:
            client.config_set("requirepass", "")

    request.addfinalizer(open_again)
