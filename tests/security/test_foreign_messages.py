"""Whoever can write to Redis may put anything there: it is refused and logged, work goes on."""

from __future__ import annotations

import base64
import json
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from db.ids import queue_name
from tests.acceptance.mill import Mill
from tests.support.processes import WorkerProcess, eventually

_PREFIX = "promptmill:"


class Bomb:
    """Whoever unpickles it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._folder),)


class Attacker:
    """Somebody who can write to the Redis of a mill, and has seen one of its messages."""

    def __init__(self, mill: Mill) -> None:
        self.client = redis.Redis.from_url(mill.env["PROMPTMILL_BROKER_URL"])
        self.queue = _PREFIX + queue_name(mill.model)
        mill.submit(1)
        (self.key,) = [key for key in self.client.keys(f"{self.queue}*") if b"unacked" not in key]
        self.seen: dict[str, Any] = json.loads(self.client.lindex(self.key, 0))  # type: ignore[arg-type]

    def push(self, item: bytes | str | dict[str, Any]) -> None:
        self.client.lpush(self.queue, json.dumps(item) if isinstance(item, dict) else item)

    def forged(self, body: object = None, **changes: Any) -> dict[str, Any]:
        """The message seen, with another body, and other headers, properties or parts."""
        made: dict[str, Any] = json.loads(json.dumps(self.seen))
        if body is not None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            made["body"] = base64.b64encode(raw).decode()
        for name, value in changes.items():
            if name in ("headers", "properties") and isinstance(value, dict):
                made[name].update(value)
            else:
                made[name.replace("_", "-")] = value
        return made


@pytest.fixture
def attacker(mill: Mill) -> Iterator[Attacker]:
    made = Attacker(mill)
    yield made
    made.client.close()


def _refusals(worker: WorkerProcess) -> int:
    return worker.said().count("action=refuse")


def _goes_on(mill: Mill, worker: WorkerProcess, refused: int) -> None:
    """All are refused, and the same process does real work, woken by its message."""
    eventually(lambda: _refusals(worker) >= refused, what=f"{refused} messages are refused")
    batch = mill.submit(20)
    mill.finished(batch)
    assert set(mill.shares(batch)) == {str(worker.process.pid)}
    assert worker.process.poll() is None
    said = worker.said()
    assert _refusals(worker) == refused, said
    assert "Unrecoverable" not in said


def test_given_what_is_no_message_when_a_worker_gets_it_then_it_is_refused(
    mill: Mill, attacker: Attacker
) -> None:
    generator = random.Random(11)
    garbage: list[bytes | str] = [
        b"", b"\xff\xfe\x00", b"{", b"null", b"7", b'"text"', b"[]", b"{}", b"[" * 100_000,
        b'{"body": "x"}', b'{"properties": null, "headers": null}', b"1" * 5_000,
        pickle.dumps({"properties": {}}),
        *(generator.randbytes(generator.randint(1, 200)) for _ in range(30)),
    ]  # fmt: skip
    worker = mill.worker()
    for item in garbage:
        attacker.push(item)
    _goes_on(mill, worker, len(garbage))


def test_given_forged_messages_when_a_worker_gets_them_then_each_is_refused(
    mill: Mill, attacker: Attacker, tmp_path: Path
) -> None:
    folder = tmp_path / "bomb"
    bomb = pickle.dumps(([Bomb(folder)], {}, {}))
    callback = {"task": "celery.backend_cleanup", "args": [], "kwargs": {}, "options": {}}
    forged = [
        attacker.forged(bomb, content_type="application/x-python-serialize"),
        attacker.forged(bomb, content_type="application/x-python-serialize",
                        content_encoding="binary"),
        attacker.forged(bomb),
        attacker.forged(content_type="application/x-yaml"),
        attacker.forged(headers={"task": "celery.backend_cleanup"}),
        attacker.forged(headers={"task": "os.system"}),
        attacker.forged(headers={"task": None}),
        attacker.forged(headers={"task": ["promptmill.chunk"]}),
        attacker.forged(headers={"compression": "application/x-gzip"}),
        attacker.forged([[1, 2], {}, {}]),
        attacker.forged([[1], {"prompt": "secret"}, {}]),
        attacker.forged([[1], {}, {"callbacks": [callback]}]),
        attacker.forged([[1], {}, {"chain": [callback]}]),
        attacker.forged([["1"], {}, {}]),
        attacker.forged([[True], {}, {}]),
        attacker.forged([[1.5], {}, {}]),
        attacker.forged([[-1], {}, {}]),
        attacker.forged([[10**30], {}, {}]),
        attacker.forged([[["nested"]], {}, {}]),
        attacker.forged([[], {}, {}]),
        attacker.forged([1, 2, 3]),
        attacker.forged({"args": [1], "kwargs": {}}),
        attacker.forged(b"[[" + b"9" * 5_000 + b"], {}, {}]"),
        attacker.forged(b"[" * 40_000),
        attacker.forged([["x" * 20_000_000], {}, {}]),
        attacker.forged(body=None, properties={"body_encoding": "utf-8"}),
        attacker.forged(headers=None),
        attacker.forged(properties=None),
    ]  # fmt: skip
    forged[-2]["headers"] = forged[-1]["properties"] = None
    worker = mill.worker()
    for message in forged:
        attacker.push(message)
    _goes_on(mill, worker, len(forged))
    assert not folder.exists()
    assert "secret" not in worker.said()


def test_given_a_true_message_with_odd_headers_when_it_rings_then_they_steer_nothing(
    mill: Mill, attacker: Attacker
) -> None:
    worker = mill.worker()
    odd: list[dict[str, Any]] = [
        {"eta": "2100-01-01T00:00:00"},
        {"eta": "never"},
        {"expires": {}},
        {"id": "x\nfaked line"},
        {"id": None},
        {"timelimit": "soon"},
        {"retries": "many", "origin": 7, "shadow": "\x1b[31m"},
    ]
    for headers in odd:
        attacker.push(attacker.forged(headers=headers))
    for properties in (
        {"delivery_tag": None},
        {"delivery_tag": [1]},
        {"delivery_info": "none"},
        {"priority": "high"},
        {"reply_to": "somebody", "correlation_id": {}},
    ):
        attacker.push(attacker.forged(properties=properties))
    eventually(lambda: not attacker.client.exists(attacker.queue), what="all are read")
    _goes_on(mill, worker, 0)
    eventually(lambda: not attacker.client.exists(f"{_PREFIX}unacked"), what="nothing is held")
    assert "faked line" not in worker.said()


def test_given_a_message_when_replayed_then_nothing_is_done_twice(
    mill: Mill, attacker: Attacker
) -> None:
    worker = mill.worker()
    batch = mill.client.batches()[0].id
    mill.finished(batch)
    for _ in range(200):
        attacker.push(attacker.seen)
    attacker.push(attacker.forged([[999_999_999], {}, {}]))
    _goes_on(mill, worker, 0)
    eventually(lambda: not attacker.client.exists(f"{_PREFIX}unacked"), what="all are answered")
    assert [one.attempts for one in mill.client.results(batch)] == [1]


def test_given_commands_when_a_worker_hears_them_then_it_obeys_nobody(
    mill: Mill, attacker: Attacker
) -> None:
    worker = mill.worker()
    number = mill.env["PROMPTMILL_BROKER_URL"].rpartition("/")[2]
    channel = f"{_PREFIX}/{number}.celery.pidbox"
    question = json.dumps(attacker.forged({"method": "ping"}))
    eventually(lambda: attacker.client.publish(channel, question), what="it listens to questions")
    commands: list[Any] = [
        {"method": "shutdown", "arguments": {}},
        {"method": "pool_shrink", "arguments": {"n": 99}},
        {"method": "cancel_consumer", "arguments": {"queue": queue_name(mill.model)}},
        {"method": "rate_limit", "arguments": {"task_name": "promptmill.chunk", "rate_limit": 1}},
        {"method": ["shutdown"]},
        {"method": None},
        {"method": "pool_restart", "arguments": {"modules": ["os"], "reload": True}},
        "shutdown",
    ]
    for command in commands:
        attacker.client.publish(channel, json.dumps(attacker.forged(command)))
    for garbage in (b"\xff", b"{", b"[]", b"{}", b"[" * 100_000):
        attacker.client.publish(channel, garbage)
    _goes_on(mill, worker, len(commands) + 3)


@pytest.mark.parametrize("broken", ["queue", "unacked", "unacked_index", "unacked_mutex"])
def test_given_a_key_of_another_kind_when_a_worker_meets_it_then_it_works_from_the_database(
    mill: Mill, attacker: Attacker, broken: str
) -> None:
    worker = mill.worker()
    key = attacker.queue if broken == "queue" else f"{_PREFIX}{broken}"
    attacker.client.delete(key)
    if broken == "unacked_index":
        attacker.client.zadd(key, {"no such tag": 1.0})
        attacker.client.hset(f"{_PREFIX}unacked", "no such tag", "no message")
    else:
        attacker.client.set(key, "not what it was")
    batch = mill.submit(20)
    mill.finished(batch)
    assert worker.process.poll() is None, worker.said()
    attacker.client.delete(key)
    _goes_on(mill, worker, _refusals(worker))
