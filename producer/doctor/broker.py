"""The broker: the embedded server, or a Redis of the user's own."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from redis.exceptions import RedisError

from db.embedded import socket_path
from db.redis_server import OLDEST_VERSION, Answer, ping, require_server
from db.settings import Settings, redact
from producer.doctor.check import Check


def broker_checks(settings: Settings) -> Iterator[Check]:
    """Raises BrokerUnavailable where there is none."""
    if settings.embedded_broker:
        yield _embedded(settings)
    else:
        yield from _own(settings)


def _embedded(settings: Settings) -> Check:
    server = require_server()
    version = ".".join(map(str, server.version))
    finding = f"embedded, {server.path.name} {version} ({server.source})"
    path = socket_path(settings.home)
    answer = ping(path)
    if answer is Answer.BUSY:
        return Check(
            "broker",
            "error",
            f"{finding}: it listens on {path} and does not answer",
            f"end the process that {settings.home / 'broker' / 'server.pid'} names",
        )
    running = "running" if answer is Answer.READY else "not running: the first user starts it"
    return Check("broker", "ok", f"{finding}, {running}")


def _own(settings: Settings) -> Iterator[Check]:
    # The workers' own way to Redis: what passes here passes there.
    from worker import app as celery_app

    app = celery_app.make_app(settings)
    celery_app.ping(app)
    with app.connection_for_write() as connection:
        client = connection.default_channel.client
        begun = time.perf_counter()
        client.ping()
        milliseconds = (time.perf_counter() - begun) * 1000
        place = f"at {redact(settings.effective_broker_url)}, answers in {milliseconds:.1f} ms"
        try:
            info = client.info()
        except RedisError as error:
            yield Check(
                "broker",
                "warning",
                f"Redis {place}, and does not let us see how it is set up: {error}",
                "allow this user the command INFO to have it checked",
            )
            return
    yield from redis_checks(info, place)


def redis_checks(info: Mapping[str, Any], place: str) -> Iterator[Check]:
    """What Redis' INFO says about its fitness; compatible servers may say less."""
    yield _server_check(info, place)
    policy = info.get("maxmemory_policy")
    if policy is not None:
        yield _eviction_check(str(policy))
    if "aof_enabled" in info:
        yield _persistence_check(bool(info["aof_enabled"]))


def _server_check(info: Mapping[str, Any], place: str) -> Check:
    name = "Valkey" if "valkey_version" in info else "Redis"
    shown = str(info.get("valkey_version") or info.get("redis_version") or "of unknown version")
    finding = f"{name} {shown} {place}"
    # Compatible servers tell here which Redis they are as good as.
    version = tuple(map(int, re.findall(r"\d+", str(info.get("redis_version", "")))[:2]))
    if version and version < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        return Check("broker", "error", finding, f"use Redis {oldest} or later")
    if info.get("role") == "slave":
        finding += ", a replica that takes no messages"
        return Check("broker", "error", finding, "set PROMPTMILL_BROKER_URL to its primary")
    return Check("broker", "ok", finding)


def _eviction_check(policy: str) -> Check:
    if policy == "noeviction":
        return Check("broker eviction", "ok", "maxmemory-policy is noeviction")
    return Check(
        "broker eviction",
        "warning",
        f"maxmemory-policy is {policy}: a full Redis drops messages without a word",
        "set 'maxmemory-policy noeviction' in redis.conf",
    )


def _persistence_check(aof: bool) -> Check:
    if aof:
        return Check("broker persistence", "ok", "the append-only file is on")
    return Check(
        "broker persistence",
        "warning",
        "the append-only file is off: messages don't outlive a restart of Redis, and batches "
        "wait until workers find their chunks in the database",
        "set 'appendonly yes' in redis.conf",
    )
