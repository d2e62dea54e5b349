"""Kombu's bookkeeping of unacknowledged messages in Redis, made to survive Redis.

Seen in kombu 5.7 under restarts of Redis: an acknowledgement that fails never gives its prefetch
credit back, so that a worker whose slots were all busy consumes no more; and giving messages back
over a connection that is gone raises out of the clean-up and ends the worker. Nothing needs them
given back: the database holds the work, and the visibility timeout returns the message.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

#: What a connection that is gone raises, an attribute of None among it.
_GONE = (RedisError, OSError, AttributeError)


class SteadyQoS(kombu_redis.QoS):
    """As kombu's, but a lost connection costs neither a credit nor the worker."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge; the credit comes back whether Redis hears it or not."""
        try:
            super().ack(delivery_tag)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject; the credit comes back whether Redis hears it or not."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Give messages back, as long as Redis is there to take them."""
        try:
            super().restore_unacked(client)
        except _GONE as error:
            logger.info("messages stay where they are: %s", error, extra={"action": "restore"})
            self._delivered.clear()


def install() -> None:
    """Have every Redis channel of this process use it."""
    kombu_redis.Channel.QoS = SteadyQoS
