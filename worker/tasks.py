"""The one task: a message rings, a slot works on the chunk that it names."""

from __future__ import annotations

import logging

from celery import Task, shared_task
from celery.exceptions import Reject

from worker.bootstep import mill_of
from worker.messages import TASK, is_chunk
from worker.run import Ending

logger = logging.getLogger(__name__)


@shared_task(name=TASK, bind=True, acks_late=True, ignore_result=True)
def chunk(self: Task, chunk_id: object = None, *extra: object, **named: object) -> None:
    """Work on a chunk to its end.

    A message that is not one chunk's id is refused and logged: it is not ours. One for a
    chunk that is done, or that somebody works on, is a no-op. A chunk that is handed back
    rings again for somebody else.
    """
    if extra or named or not isinstance(chunk_id, int) or not is_chunk(chunk_id):
        logger.error("refused a malformed message", extra={"action": "refuse"})
        raise Reject("malformed", requeue=False)
    ending = mill_of(self.app).work_on(chunk_id)
    if ending is Ending.RELEASED:
        raise Reject("handed back", requeue=True)
