"""Messages over a real Redis: one chunk's id each, and nothing else is taken for one."""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import Reject
from kombu import Exchange, Producer, Queue

import worker.tasks
from db.database import Database
from db.errors import BrokerUnavailable
from db.ids import queue_name
from db.migrate import upgrade
from db.settings import Settings
from tests.support.processes import WorkerProcess, eventually, workers
from tests.support.stored import a_batch, batch_now
from worker.app import make_app, ping, send
from worker.messages import TASK
from worker.run import Ending

MODEL = "test/celery"
NAME = queue_name(MODEL)


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    made = make_app(Settings(broker_url=redis_url, model=MODEL))
    yield made
    made.close()


def received(app: Celery, name: str = NAME) -> list[Any]:
    """Every message of a queue, in the order in which a worker gets them."""
    found = []
    with app.connection_for_read() as connection:
        queue = Queue(name, Exchange(name), routing_key=name)(connection.default_channel)
        while (message := queue.get()) is not None:
            message.ack()
            found.append(message)
    return found


def test_given_chunks_when_sent_then_a_message_is_a_chunks_id_and_nothing_else(
    app: Celery,
) -> None:
    assert send(app, [(7, NAME, 5), (8, "promptmill.other", 5)]) == 2
    (message,) = received(app)
    arguments, named, _ = json.loads(message.body)
    assert (arguments, named) == ([7], {})
    assert message.content_type == "application/json"
    assert message.headers["task"] == TASK
    (other,) = received(app, "promptmill.other")
    assert json.loads(other.body)[0] == [8]


def test_given_chunks_of_several_priorities_when_sent_then_the_most_urgent_come_first(
    app: Celery,
) -> None:
    send(app, [(1, NAME, 0), (2, NAME, 9), (3, NAME, 5), (4, NAME, 9), (5, NAME, 0)])
    order = [json.loads(message.body)[0][0] for message in received(app)]
    assert order == [2, 4, 3, 1, 5]


def test_given_many_chunks_when_sent_at_once_then_all_arrive_in_order(app: Celery) -> None:
    assert send(app, [(chunk, NAME, 5) for chunk in range(1_000)]) == 1_000
    assert [json.loads(message.body)[0][0] for message in received(app)] == list(range(1_000))
    assert send(app, []) == 0


def test_given_no_redis_when_sent_then_the_error_names_it_without_the_password() -> None:
    app = make_app(Settings(broker_url="redis://:hunter2@127.0.0.1:1/0"))
    with pytest.raises(BrokerUnavailable) as failure:
        send(app, [(1, NAME, 5)])
    message = failure.value.message
    assert message.startswith("can't reach Redis at redis://:***@127.0.0.1:1/0: ")
    assert message.endswith("check PROMPTMILL_BROKER_URL")
    assert "hunter2" not in message
    assert "\n" not in message


def test_given_a_wrong_password_when_pinged_then_the_error_says_so(redis_url: str) -> None:
    with_password = redis_url.replace("redis://", "redis://nobody:hunter2@")
    with pytest.raises(BrokerUnavailable) as failure:
        ping(make_app(Settings(broker_url=with_password)))
    assert "nobody:***@" in failure.value.message
    assert "hunter2" not in failure.value.message


def test_given_an_embedded_broker_that_does_not_run_when_sent_then_it_fails_at_once(
    tmp_path: Path,
) -> None:
    app = make_app(Settings(home=tmp_path))
    with pytest.raises(BrokerUnavailable, match="the embedded broker does not run"):
        send(app, [(1, NAME, 5)])


def test_given_redis_when_pinged_then_it_answers(app: Celery) -> None:
    ping(app)


# --- the task -----------------------------------------------------------------------------


class FakeMill:
    def __init__(self, ending: Ending) -> None:
        self.chunks: list[int] = []
        self._ending = ending

    def work_on(self, chunk: int) -> Ending:
        self.chunks.append(chunk)
        return self._ending


def task_of(ending: Ending) -> tuple[Any, FakeMill]:
    app = make_app(Settings(broker_url="redis://127.0.0.1:1/0", model=MODEL))
    app.promptmill_mill = FakeMill(ending)
    assert worker.tasks.chunk is not None
    return app.tasks[TASK], app.promptmill_mill


@pytest.mark.parametrize("ending", [Ending.WRITTEN, Ending.GONE, Ending.LOST])
def test_given_a_chunks_id_when_it_rings_then_the_mill_works_on_it(ending: Ending) -> None:
    task, mill = task_of(ending)
    assert task.run(7) is None
    assert mill.chunks == [7]


def test_given_a_chunk_that_is_handed_back_when_it_rang_then_it_rings_for_somebody_else() -> None:
    task, _ = task_of(Ending.RELEASED)
    with pytest.raises(Reject) as rejected:
        task.run(7)
    assert rejected.value.requeue


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), {}),
        (("7",), {}),
        ((7.0,), {}),
        ((True,), {}),
        ((0,), {}),
        ((2**63,), {}),
        ((None,), {}),
        (([7],), {}),
        ((7, 8), {}),
        ((7,), {"prompt": "Hello"}),
    ],
)
def test_given_another_message_when_it_rings_then_it_is_refused_and_logged_without_its_content(
    arguments: tuple[Any, ...], named: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    task, mill = task_of(Ending.WRITTEN)
    with pytest.raises(Reject) as rejected:
        task.run(*arguments, **named)
    assert not rejected.value.requeue
    assert mill.chunks == []
    assert "refused a malformed message" in caplog.text
    assert "Hello" not in caplog.text


# --- a real worker ------------------------------------------------------------------------


class Bomb:
    """Whoever unpickles it writes a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._file),)


def left(url: str) -> list[str]:
    """The keys of messages that wait, or that nobody has acknowledged."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        found = client.keys("promptmill:*")
    return sorted(key for key in found if "_kombu" not in key)


def put(app: Celery, body: bytes, content_type: str, **headers: Any) -> None:
    """A message that is none of ours."""
    with app.connection_for_write() as connection:
        producer = Producer(connection)
        queue = Queue(NAME, Exchange(NAME), routing_key=NAME)
        producer.publish(
            body,
            exchange=queue.exchange,
            routing_key=NAME,
            declare=[queue],
            content_type=content_type,
            content_encoding="binary" if "python" in content_type else "utf-8",
            headers={"lang": "py", "task": TASK, "id": "1", **headers},
            priority=0,
        )


def test_given_foreign_messages_when_a_worker_gets_them_then_it_refuses_each_and_goes_on(
    app: Celery, redis_url: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    database = Database(Settings(database_url=url))
    upgrade(database)
    file = tmp_path / "bomb"
    put(app, pickle.dumps(([Bomb(file)], {}, {})), "application/x-python-serialize")
    put(app, b'[["not a number"], {}, {}]', "application/json")
    put(app, b"{", "application/json")
    put(app, b"[[1], {}, {}]", "application/json", task="another.task")
    batch = a_batch(database, 8, queue=NAME, model=MODEL)
    env = {
        "PROMPTMILL_DATABASE_URL": url,
        "PROMPTMILL_BROKER_URL": redis_url,
        "PROMPTMILL_MODEL": MODEL,
        "PROMPTMILL_ENGINE": "echo",
    }
    with workers(tmp_path / "logs") as make:
        process: WorkerProcess = make(env)
        process.ready()
        eventually(
            lambda: process.said().count("refused a message") == 4,
            what="every foreign message is refused",
        )
        eventually(lambda: batch_now(database, batch).finished, what="the batch is complete")
        eventually(lambda: left(redis_url) == [], what="every message is answered for")
        process.signal(signal.SIGTERM)
        assert process.ended() == 0, process.said()
    assert not file.exists()
    database.close()
