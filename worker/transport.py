"""Celery's way to Redis, with a guard: a message that is none of ours is logged and dropped.

Kombu trusts what it reads: a list's item that is no message ends the worker. Here every item
passes `worker.messages.checked` before anything else of kombu or Celery sees it.

And it trusts Redis to stay (kombu 5.7, under restarts of Redis): an acknowledgement that fails
never gives its prefetch credit back, so that a worker whose slots were all busy consumes no more;
giving messages back over a connection that is gone ends the worker, and so does an
acknowledgement that is due when its channel has just closed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from queue import Empty
from typing import Any

from celery.app.amqp import AMQP as CeleryAMQP  # noqa: N811 - ours has the same name
from kombu import Connection as KombuConnection
from kombu.transport import redis, virtual
from kombu.utils.json import dumps
from redis.exceptions import RedisError

from worker.messages import Refused, checked, is_held

logger = logging.getLogger(__name__)

#: What reading an item as JSON raises, if it is none.
_NOT_JSON = (ValueError, RecursionError)


#: What a connection that is gone raises, an attribute of None among it.
_GONE = (RedisError, OSError, AttributeError)


class QoS(redis.QoS):
    """Puts back what was not acknowledged, where it is a message and Redis is there to take it.

    Nothing needs it: the database holds the work, and the visibility timeout returns the message.
    """

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge; the credit comes back whether Redis hears it or not."""
        try:
            super().ack(delivery_tag)
        except AttributeError as error:
            self._forgive(error)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject; the credit comes back whether Redis hears it or not."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        except AttributeError as error:
            self._forgive(error)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Put all of it back, as far as Redis is there."""
        try:
            super().restore_unacked(client)
        except _GONE as error:
            logger.info("messages stay where they are: %s", error, extra={"action": "restore"})
            self._delivered.clear()

    def _forgive(self, error: AttributeError) -> None:
        """An answer that was due when its channel closed: Celery would end the worker for it."""
        if not self.channel.closed:
            raise error
        logger.info("a message stays where it is: %s", error, extra={"action": "restore"})

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        with self.channel.conn_or_acquire(client) as connection:
            item = connection.hget(self.unacked_key, tag)
            if item is not None and not is_held(item):
                _refuse("it is none that a worker holds")
                connection.hdel(self.unacked_key, tag)
        # Of a tag without a message it strikes off the tag.
        super().restore_by_tag(tag, client, leftmost)


class Channel(redis.Channel):
    """Goes on after an item that can't be read."""

    QoS = QoS

    def put_all(self, messages: Iterable[tuple[str, dict[str, Any]]]) -> int:
        """Put messages, in kombu's form, into their queues at once; how many.

        Publishing one by one asks Redis for the queues of an exchange each time.
        """
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipeline:
            for queue, message in messages:
                priority = self._get_message_priority(message)
                pipeline.lpush(self._q_for_pri(queue, priority), dumps(message))
            return len(pipeline.execute())

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except _NOT_JSON:
            _refuse("it is not JSON")
            raise Empty from None

    def _receive_one(self, c: Any) -> Any:
        try:
            return super()._receive_one(c)
        except _NOT_JSON:
            _refuse("it is not JSON")
            raise Empty from None


class Transport(redis.Transport):
    """Delivers what is checked, and nothing else."""

    Channel = Channel

    def _deliver(self, message: object, queue: str) -> None:
        try:
            clean = checked(message, queue)
        except Refused as refused:
            _refuse(str(refused))
        else:
            super()._deliver(clean, queue)


class Connection(KombuConnection):
    """A connection over the guarded transport, whatever form its URL has."""

    def get_transport_cls(self) -> Any:
        found = super().get_transport_cls()
        return Transport if found is redis.Transport else found


class AMQP(CeleryAMQP):
    """Makes an application's connections guarded ones."""

    Connection = Connection


def _refuse(reason: str) -> None:
    logger.error("refused a message: %s", reason, extra={"action": "refuse"})
