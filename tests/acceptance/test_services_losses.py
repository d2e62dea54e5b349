"""What breaks between the parts: Redis forgets or is away, the schema is missing, twice is once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.acceptance.mill import Mill, echoing
from tests.support.processes import eventually, workers
from tests.support.services import Postgres

_NOWHERE = "redis://:hush@127.0.0.1:1/0"


def test_given_lost_messages_when_workers_come_then_the_batch_still_finishes(mill: Mill) -> None:
    batch = mill.submit(300)
    with redis.Redis.from_url(mill.env["PROMPTMILL_BROKER_URL"]) as client:
        assert client.keys()
        client.flushdb()
    mill.worker()
    mill.finished(batch)
    mill.shares(batch)


def test_given_lost_messages_when_workers_are_busy_then_the_batch_still_finishes(
    mill: Mill,
) -> None:
    mill.worker(echoing(latency=0.1, capacity=20))
    batch = mill.submit(300)
    mill.until(batch, lambda found: found.done > 0, "begun")
    with redis.Redis.from_url(mill.env["PROMPTMILL_BROKER_URL"]) as client:
        client.flushdb()
    mill.finished(batch)
    mill.shares(batch)
    assert {result.attempts for result in mill.client.results(batch)} == {1}


def test_given_no_redis_when_steering_and_reading_then_the_database_is_enough(mill: Mill) -> None:
    batch = mill.submit(3)
    mill.env["PROMPTMILL_BROKER_URL"] = _NOWHERE
    assert mill.json("pause", batch)["state"] == "paused"
    assert mill.json("resume", batch)["state"] == "queued"
    assert mill.ok("results", batch) == ""


@pytest.fixture
def without_schema(tmp_path: Path, postgres: Postgres, redis_url: str) -> Iterator[Mill]:
    with postgres.database(schema=False) as url, workers(tmp_path / "workers") as start:
        env = {"PROMPTMILL_DATABASE_URL": url, "PROMPTMILL_BROKER_URL": redis_url}
        made = Mill(tmp_path, env, start)
        yield made
        made.client.close()


def test_given_no_schema_when_anything_starts_then_it_says_what_to_do(
    without_schema: Mill,
) -> None:
    mill = without_schema
    worker = mill.start_worker()
    assert worker.ended() == 1
    last = worker.said().splitlines()[-1]
    assert last.startswith("promptmill worker: database postgresql+psycopg://")
    assert last.endswith("has no promptmill schema: run 'promptmill db upgrade'")
    assert "Traceback" not in worker.said()
    refused = mill.run("submit", mill.numbered(2), "--model", mill.model)
    assert refused.returncode == 1
    assert refused.stderr.endswith("run 'promptmill db upgrade'\n")

    told = mill.json("db", "upgrade")
    assert told["before"] is None
    assert mill.json("db", "upgrade") == {"before": told["after"], "after": told["after"]}
    mill.worker()
    mill.finished(mill.submit(2))


def test_given_the_same_submission_when_made_twice_then_it_is_one_batch(mill: Mill) -> None:
    one = mill.submit(5, "--name", "mine")
    again = mill.run("submit", mill.numbered(5), "--model", mill.model, "--name", "mine")
    assert (again.returncode, again.stdout) == (0, f"{one}\n")
    before, missing = again.stderr.splitlines()
    assert before == f"the same content was submitted before: batch {one} is queued"
    assert missing.startswith("no worker serves it yet; start one: ")
    told = mill.json(
        "submit", mill.numbered(5), "--model", mill.model, "--name", "mine", "-p", "max_tokens=3"
    )
    assert told["id"] != one
    assert told["created"] is True
    unnamed = mill.submit(5)
    assert len({one, told["id"], unnamed}) == len(mill.client.batches()) == 3


def test_given_an_idempotency_key_when_used_again_then_only_for_the_same_content(
    mill: Mill,
) -> None:
    one = mill.submit(5, "--idempotency-key", "monday")
    assert mill.submit(5, "--idempotency-key", "monday") == one
    piped = mill.ok(
        "submit", "-", "--model", mill.model, "--idempotency-key", "monday",
        stdin=Path(mill.numbered(5)).read_text(),
    )  # fmt: skip
    assert piped.strip() == one

    other = mill.run(
        "submit", mill.numbered(6), "--model", mill.model, "--idempotency-key", "monday"
    )
    assert other.returncode == 2
    assert other.stderr == (
        f"promptmill: idempotency key 'monday' belongs to batch {one}, which has other content: "
        "choose another key\n"
    )
    assert [batch.id for batch in mill.client.batches()] == [one]


def test_given_redis_comes_late_when_a_worker_starts_then_it_works_all_the_same(
    mill: Mill,
) -> None:
    batch = mill.submit(5)
    worker = mill.start_worker(PROMPTMILL_BROKER_URL=_NOWHERE)
    worker.ready()
    mill.finished(batch)
    eventually(lambda: mill.client.workers(), what="it is seen")
