"""The Celery application: what producers send with and workers run on.

Importing it loads no model library. `celery -A worker.app worker` finds `app`, configured from
the environment; everyone else calls `make_app` with their own settings.

The settings below are those that held in measurements under kills and restarts; each that is
not obvious says why.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from db import embedded, redis_server
from db.errors import BrokerRefused, BrokerUnavailable
from db.ids import new_mark, queue_name
from db.settings import Settings, redact, settings
from worker.messages import chunk_message

if TYPE_CHECKING:
    from worker.transport import Channel

#: Longer than any chunk takes: the database's lease finds dead workers long before.
VISIBILITY_TIMEOUT = 3600

#: Seconds for a Redis to answer who is asked whether it is there.
_PATIENCE = 5

_AWAY = (OperationalError, RedisError, OSError)

#: What a wait does not mend: it answers, or its name is known to nobody.
_REFUSED = re.compile(
    r"authenti|password|no permissions|certificate|wrong_version|DB index|not known", re.IGNORECASE
)

_TRANSPORT = {
    "visibility_timeout": VISIBILITY_TIMEOUT,
    # By default a message that is due again waits for up to ten more sweeps.
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "global_keyprefix": "promptmill:",
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
}


def make_app(config: Settings, mark: str | None = None) -> Celery:
    """A Celery application for these settings; `mark` ends the name of a worker that it runs."""
    app = Celery(
        "promptmill",
        broker=config.effective_broker_url,
        amqp="worker.transport:AMQP",
        set_as_current=False,
    )
    if config.effective_broker_url.startswith("rediss://"):
        # Celery alone would take any certificate; the URL may still say ssl_cert_reqs=none.
        app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    app.conf.update(
        imports=("worker.tasks",),
        broker_transport_options=dict(_TRANSPORT),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A Redis that refuses, as where a queue's key is no list, is one that is away.
        broker_channel_error_retry=True,
        broker_pool_acquire_timeout=10,
        # The database holds the results and decides on retries; Redis only rings the bell.
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,
        task_serializer="json",
        accept_content=["json"],
        task_queues=_queues(config),
        # One process holds one model: threads wait for its chunks, they compute nothing.
        worker_pool="threads",
        worker_concurrency=config.slots,
        worker_prefetch_multiplier=1,
        # Without remote control a worker can stop consuming for good after a Redis restart.
        worker_enable_remote_control=True,
        worker_soft_shutdown_timeout=0,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
    )
    # By name: a producer, which only sends, loads nothing of the worker.
    app.steps["worker"].add("worker.bootstep:MillStep")
    app.promptmill_settings = config
    app.promptmill_mark = mark or new_mark()
    return app


def _queues(config: Settings) -> list[Queue] | None:
    """A worker listens to its model's queue only."""
    if config.model is None:
        return None
    name = queue_name(config.model)
    return [Queue(name, Exchange(name), routing_key=name)]


def send(app: Celery, messages: Iterable[tuple[int, str, int]]) -> int:
    """Ring the bell for chunks (id, queue, priority 0 … 9, higher is sooner); how many.

    Raises BrokerUnavailable; some messages may have gone out then, which is harmless: a second
    delivery of a chunk is a no-op.
    """
    _require_embedded(app)
    try:
        with _connected(app) as channel:
            # Redis serves the lower number first.
            made = [(name, chunk_message(id_, name, 9 - level)) for id_, name, level in messages]
            return channel.put_all(made)
    except _AWAY as error:
        raise _away(app, error) from error


def _require_embedded(app: Celery) -> None:
    """Raise BrokerUnavailable at once where the embedded broker is ours and does not run."""
    config: Settings = app.promptmill_settings
    if config.embedded_broker:
        answer = redis_server.ping(embedded.socket_path(config.home))
        if answer is not redis_server.Answer.READY:
            raise BrokerUnavailable(f"the embedded broker does not run ({answer.value})")


@contextmanager
def _connected(app: Celery) -> Iterator[Channel]:
    """A channel to a Redis that answers; fails soon where nobody does."""
    # A server that takes the connection and is silent, as one without TLS, is given up soon too.
    options = {"socket_timeout": _PATIENCE}
    with app.connection_for_write(transport_options=options) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.2, timeout=_PATIENCE)
        channel: Channel = connection.default_channel
        channel.client.ping()
        yield channel


def ping(app: Celery) -> None:
    """Raise BrokerUnavailable unless the broker answers."""
    _require_embedded(app)
    try:
        with _connected(app):
            pass
    except _AWAY as error:
        raise _away(app, error) from error


def _away(app: Celery, error: BaseException) -> BrokerUnavailable:
    kind = BrokerRefused if _REFUSED.search(str(error)) else BrokerUnavailable
    return kind(unreachable(app, error))


def unreachable(app: Celery, error: BaseException) -> str:
    config: Settings = app.promptmill_settings
    if config.embedded_broker:
        return f"the embedded broker failed: {_first_line(error)}"
    url = config.effective_broker_url
    tls = " (rediss:// is for servers with TLS)" if url.startswith("rediss:") else ""
    return (
        f"can't reach Redis at {redact(url)}: {_first_line(error)}; "
        f"check PROMPTMILL_BROKER_URL{tls}"
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@lru_cache(maxsize=1)
def _default_app() -> Celery:
    return make_app(settings())


def __getattr__(name: str) -> Any:
    """`app`, made when someone asks: importing this module reads no settings."""
    if name == "app":
        return _default_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
