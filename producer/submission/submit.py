"""The submission from end to end, and the ringing of the bell."""

from __future__ import annotations

from collections.abc import Callable

from db.database import Database
from db.errors import BrokerUnavailable, DatabaseUnavailable
from db.patience import patiently
from db.queries import batches, chunks
from db.records import Batch
from producer.intake import Lines, Reading
from producer.submission.checks import LineChecks
from producer.submission.digest import Digest
from producer.submission.filling import Filling
from producer.submission.order import Order, Submission, other_content
from producer.submission.slices import slices

#: Messages sent at once.
_MESSAGES = 1_000

Send = Callable[[list[tuple[int, str, int]]], int]


def submit(
    database: Database,
    send: Send,
    order: Order,
    lines: Lines,
    *,
    patience: float,
    on_progress: Callable[[int], None] = lambda _count: None,
) -> Submission:
    """Read, store, send.

    A database that goes away meanwhile is waited for, each time for `patience` seconds at most.
    `on_progress` hears the number of lines stored so far. Raises InvalidInput with every bad
    line, InputError, DatabaseError.
    """
    known = patiently(lambda: _known_batches(database, order), patience)
    if known and lines.repeatable:
        digest = digest_of(order, lines.read())
        same = next((batch for batch in known if batch.digest == digest), None)
        if same is not None:
            return Submission(same, created=False, sent=0)
        if order.idempotency_key is not None:
            raise other_content(order.idempotency_key, known[0].id)
    filling = Filling(database, order, patience)
    try:
        filling.fill(lines.read(), on_progress)
        batch, created = filling.activate()
    except BaseException:
        filling.discard()
        raise
    if not created:
        filling.discard()
        return Submission(batch, created=False, sent=0)
    try:
        return Submission(batch, created=True, sent=send_messages(database, send, batch.key))
    except (BrokerUnavailable, DatabaseUnavailable) as error:
        return Submission(batch, created=True, sent=0, unsent_reason=error.message)


def send_messages(database: Database, send: Send, batch: int) -> int:
    """Ring the bell for every chunk of a batch that has not rung yet; how many."""
    count = 0
    while True:
        with database.write() as connection:
            due = chunks.take_unsent(connection, _MESSAGES, batch=batch)
        if not due:
            return count
        try:
            count += send(due)
        except BrokerUnavailable:
            with database.write() as connection:
                chunks.unsend(connection, [chunk for chunk, _, _ in due])
            raise


def digest_of(order: Order, reading: Reading) -> str:
    """Of what `submit` would store."""
    digest = Digest(order)
    for part in slices(reading.lines, LineChecks(order)):
        digest.add(part.jobs)
    return digest.hexdigest(reading.header.columns)


def _known_batches(database: Database, order: Order) -> list[Batch]:
    with database.read() as connection:
        if order.idempotency_key is not None:
            return batches.find(connection, idempotency_key=order.idempotency_key)
        if order.name is not None and not order.fresh:
            return batches.find(connection, name=order.name)
    return []
