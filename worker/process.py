"""A worker process from the inside: engine, database, mill and duties, started and stopped.

    start   database → engine → registration → duties
    stop    drain → duties → flusher → engine → farewell

In this order: a model that can't load stops the worker before anybody counts on it, and leases
are kept until the last chunk is written or handed back.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import orjson
from celery.worker import state

from db.database import Database
from db.errors import DatabaseError, SettingsError
from db.ids import queue_name
from db.migrate import ready
from db.patience import patiently
from db.queries import batches as batch_queries
from db.queries import workers as worker_queries
from db.settings import Settings, variable
from db.wording import count_of
from worker.engine.protocol import Engine, EngineInfo
from worker.fingerprint import Fingerprint
from worker.heartbeat import Heartbeat
from worker.loading import load_engine
from worker.mill import Mill
from worker.poller import Poller
from worker.pulse import Pulse
from worker.recovery.rounds import Recovery
from worker.recovery.sessions import Sessions
from worker.recovery.unsent import Send
from worker.schema_watch import SchemaWatch
from worker.watchdog import Watchdog

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds for the last writes of a shutdown, on top of the grace.
_LAST_WRITES = 10.0


class WorkerProcess:
    """Everything that one worker process runs, besides Celery."""

    def __init__(
        self, settings: Settings, *, name: str, send: Send, leave: Callable[[], object]
    ) -> None:
        """`name` is what the database knows it by.

        `send` rings the bell for chunks; it raises BrokerUnavailable.

        `leave` has this process finish and end, as a first SIGTERM does.
        """
        self._settings = settings
        self._name = name
        self._send = send
        self._leave = leave
        self._duties: list[Pulse] = []
        self._fingerprint: Fingerprint | None = None
        self._resources = ExitStack()
        self._stopped = threading.Event()
        self.mill: Mill | None = None

    def start(self) -> None:
        """Load the model and begin. Raises PromptmillError with the reason."""
        settings = self._settings
        if settings.model is None:
            raise SettingsError(f"which model? give --model, or set {variable('model')}")
        database = Database(settings)
        self._resources.callback(database.close)
        self._patiently(lambda: ready(database))
        only = self._patiently(lambda: _only_batch(database, settings))
        engine, info = load_engine(settings, settings.model)
        self._resources.callback(engine.close)
        fingerprint = self._fingerprint = Fingerprint(info.folder, settings.home / "digests")
        queue = queue_name(settings.model)
        # Loading may have taken minutes, in which the database may have gone away.
        worker = self._patiently(
            lambda: self._register(database, info, queue, fingerprint.tokenizer)
        )
        fingerprint.start(lambda weights: self._identify(database, worker, weights))
        mill = Mill(settings, database, engine, worker=worker, queue=queue, only=only)
        mill.flusher.start()
        self.mill = mill
        self._begin_duties(database, engine, mill, worker, queue)
        logger.info("%s", ready_line(info, queue), extra={"action": "ready", "worker": worker})

    def stop(self, grace: float) -> None:
        """Drain for `grace` seconds at most, write what is there, and go. Idempotent."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self.mill is not None:
            returned = self.mill.drain(grace)
            if returned:
                what = count_of(returned, "unfinished chunk")
                logger.info("handed back %s", what, extra={"action": "release"})
            last = time.monotonic() + _LAST_WRITES
            self.mill.flusher.stop(_LAST_WRITES)
            self.mill.abandon()
            if self._fingerprint is not None:
                self._fingerprint.wait(last - time.monotonic())
        for duty in self._duties:
            duty.stop()
        self._resources.close()

    def _patiently(self, call: Callable[[], T]) -> T:
        """What `call` returns once the database lets it; a signal to stop ends the wait."""

        def attempt() -> T:
            if state.should_stop is not None:
                raise SystemExit(0)
            return call()

        return patiently(attempt, self._settings.patience)

    def _register(
        self, database: Database, info: EngineInfo, queue: str, tokenizer: str | None
    ) -> int:
        values = {
            "name": self._name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "queue": queue,
            "engine": info.engine,
            "engine_version": info.engine_version,
            "model": info.model,
            "revision": info.revision,
            "device": info.device,
            "dtype": info.dtype,
            "parameters": info.parameters,
            "kv_tokens": info.kv_tokens,
            "context_length": info.context_length,
            "capacity": info.capacity,
            "backend": info.backend,
            "hardware": info.hardware,
            "tokenizer": tokenizer,
            "adapters": orjson.dumps(dict(info.adapters)).decode() if info.adapters else None,
        }
        with database.write() as connection:
            key = worker_queries.register(connection, values)
        self._resources.callback(_say_goodbye, database, key)
        return key

    def _identify(self, database: Database, worker: int, weights: str) -> None:
        """Not `_patiently`: it may be the last that is written before the end."""

        def write() -> None:
            with database.write() as connection:
                worker_queries.identify(connection, worker, weights)

        patiently(write, self._settings.patience)

    def _begin_duties(
        self, database: Database, engine: Engine, mill: Mill, worker: int, queue: str
    ) -> None:
        heartbeat = Heartbeat(self._settings, database, engine, mill, worker=worker)
        recovery = Recovery(self._settings, database, queue, self._send)
        watchdog = Watchdog(self._settings, database, engine, mill, worker=worker)
        schema = SchemaWatch(database, interval=self._settings.recovery_interval, leave=self._leave)
        beats: dict[str, Callable[[], float]] = {
            "heartbeat": heartbeat.beat,
            "poller": Poller(mill).poll,
            "recovery": recovery.round,
            "watchdog": watchdog.look,
            "schema watch": schema.look,
            "sessions": Sessions(self._settings, database).look,
        }
        for name, beat in beats.items():
            duty = Pulse(name, beat)
            duty.start()
            self._duties.append(duty)


def _only_batch(database: Database, settings: Settings) -> int | None:
    """The key of the batch that the settings name. Raises NotFoundError."""
    if settings.batch is None:
        return None
    with database.read() as connection:
        return batch_queries.get(connection, settings.batch).key


def ready_line(info: EngineInfo, queue: str) -> str:
    """One honest line: what was loaded, where, and what it may hold."""
    kv_cache = "unbounded" if info.kv_tokens is None else f"{info.kv_tokens:,} tokens"
    size = f" ({_count(info.parameters)} parameters)" if info.parameters else ""
    adapters = f", adapters {' '.join(info.adapters)}" if info.adapters else ""
    return (
        f"ready: {info.model}{size} on {info.device}, "
        f"{info.dtype}, KV cache {kv_cache}, {info.capacity} at once, queue {queue}{adapters}"
    )


def _count(parameters: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if parameters >= size:
            return f"{parameters / size:.1f}{unit}"
    return str(parameters)


def _say_goodbye(database: Database, worker: int) -> None:
    try:
        with database.write() as connection:
            worker_queries.stop(connection, worker)
    except DatabaseError as error:
        logger.warning("left without a word: %s", error.message, extra={"action": "stop"})
