"""The submission from end to end, and the ringing of the bell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

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
#: Why a batch of the same content won't do; None: it will.
Outdated = Callable[[Batch], str | None]


def submit(
    database: Database,
    send: Send,
    order: Order,
    lines: Lines,
    *,
    patience: float,
    on_progress: Callable[[int], None] = lambda _count: None,
    outdated: Outdated = lambda _batch: None,
) -> Submission:
    """Read, store, send.

    A batch of the same content that is `outdated` is passed over, and a new one is made.

    A database that goes away meanwhile is waited for, each time for `patience` seconds at most.
    `on_progress` hears the number of lines stored so far. Raises InvalidInput with every bad
    line, InputError, DatabaseError.
    """
    known = patiently(lambda: _known_batches(database, order), patience)
    earlier = Earlier([], None)
    if known and lines.repeatable:
        digest = digest_of(order, lines.read())
        earlier = _earlier(known, digest, outdated)
        if earlier.batch is not None:
            return Submission(earlier.batch, created=False, sent=0)
        if order.idempotency_key is not None:
            raise other_content(order.idempotency_key, known[0].id)
    filling = Filling(database, order, patience)
    try:
        filling.fill(lines.read(), on_progress)
        if known and not lines.repeatable:
            earlier = _earlier(known, filling.digest, outdated)
        batch, created = (
            (earlier.batch, False)
            if earlier.batch is not None
            else filling.activate(again=bool(earlier.passed_over))
        )
    except BaseException:
        filling.discard()
        raise
    if not created:
        filling.discard()
        return Submission(batch, created=False, sent=0)
    passed_over = next(iter(earlier.passed_over), None)
    try:
        sent = send_messages(database, send, batch.key)
    except (BrokerUnavailable, DatabaseUnavailable) as error:
        return Submission(batch, True, 0, unsent_reason=error.message, outdated=passed_over)
    return Submission(batch, True, sent, outdated=passed_over)


class Earlier(NamedTuple):
    """What there is of the same content."""

    #: Those that are outdated, each with the reason, newest first.
    passed_over: list[tuple[Batch, str]]
    #: The newest one that is not.
    batch: Batch | None


def _earlier(known: Iterable[Batch], digest: str, outdated: Outdated) -> Earlier:
    passed_over: list[tuple[Batch, str]] = []
    for batch in known:
        if batch.digest != digest:
            continue
        reason = outdated(batch)
        if reason is None:
            return Earlier(passed_over, batch)
        passed_over.append((batch, reason))
    return Earlier(passed_over, None)


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
