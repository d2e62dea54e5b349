"""Submit: read, store, then send.

    read      lines come as a stream; every bad one is noted
    store     jobs in slices, under a batch that no worker sees yet (`validating`)
    activate  one transaction opens the batch and cuts it into chunks
    send      one message a chunk; should Redis be away, workers find the chunks by themselves

Killed at any line of this, a producer leaves either a whole batch or one that nobody runs and
that recovery sweeps away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from db import ids
from db.database import Database
from db.errors import BrokerUnavailable, ConflictError, InputError, PromptmillError
from db.queries import batches, chunks, jobs
from db.queries.deletion import delete_batch
from db.queries.jobs import NewJob
from db.records import Batch
from producer.model_files import canonical_model, chat_template_state
from producer.reading import BadLine, Line

#: Jobs stored in one transaction: a second of work, so that SQLite's other writers get a turn.
SLICE = 5_000
#: Messages sent at once.
_MESSAGES = 1_000
#: Bad lines that an error tells of.
_TOLD = 1_000

Send = Callable[[list[tuple[int, str, int]]], int]


@dataclass(frozen=True, slots=True)
class Order:
    """What is submitted, besides the prompts themselves."""

    model: str
    name: str | None = None
    idempotency_key: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: 0 … 9, higher is sooner.
    priority: int = 5
    #: Bad lines become failed jobs, and the rest runs.
    skip_invalid: bool = False
    #: Run a line that names another model with this one.
    ignore_line_model: bool = False
    chunk_size: int = 64


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of it."""

    batch: Batch
    #: False: the same content was submitted before, and this is that batch.
    created: bool
    #: Messages on their way; fewer than chunks where Redis is away.
    sent: int
    #: Why they are not all on their way.
    unsent_reason: str | None = None


class InvalidInput(InputError):
    """Lines that can't become requests; nothing of the file was queued."""

    def __init__(self, bad: list[BadLine], count: int) -> None:
        self.bad = bad
        self.count = count
        more = f" (and {count - 1} more bad lines)" if count > 1 else ""
        super().__init__(f"{bad[0].message}{more}; nothing was queued")


def submit(
    database: Database,
    send: Send,
    order: Order,
    lines: Callable[[], Iterable[Line | BadLine]],
    *,
    repeatable: bool,
    on_progress: Callable[[int], None] = lambda _count: None,
) -> Submission:
    """Submit what `lines()` yields; call it twice only if it is `repeatable`.

    `on_progress` hears the number of lines stored so far. Raises InvalidInput with every bad
    line, InputError, DatabaseError.
    """
    known = _known_batches(database, order)
    if known and repeatable:
        digest = _digest_of(order, lines())
        same = next((batch for batch in known if batch.digest == digest), None)
        if same is not None:
            return Submission(same, created=False, sent=0)
        if order.idempotency_key is not None:
            raise _other_content(order.idempotency_key, known[0].id)
    stored = _Stored(database, order)
    try:
        stored.fill(lines(), on_progress)
        batch, created = stored.activate()
    except BaseException:
        stored.discard()
        raise
    if not created:
        stored.discard()
        return Submission(batch, created=False, sent=0)
    try:
        return Submission(batch, created=True, sent=send_messages(database, send, batch.key))
    except BrokerUnavailable as error:
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


class Digest:
    """The identity of a submission's content: model, parameters and every request, in order."""

    def __init__(self, order: Order) -> None:
        self._hash = hashlib.sha256()
        self._add({"model": order.model, "params": dict(order.params)})

    def add(self, line: Line | BadLine) -> None:
        if isinstance(line, Line):
            self._add([line.custom_id, line.request])
        else:
            self._add([line.custom_id, {"invalid": line.reason}])

    def _add(self, value: object) -> None:
        self._hash.update(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
        self._hash.update(b"\n")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _digest_of(order: Order, lines: Iterable[Line | BadLine]) -> str:
    digest = Digest(order)
    checks = _LineChecks(order)
    for line in lines:
        digest.add(checks.check(line))
    return digest.hexdigest()


def _known_batches(database: Database, order: Order) -> list[Batch]:
    with database.read() as connection:
        if order.idempotency_key is not None:
            return batches.find(connection, idempotency_key=order.idempotency_key)
        if order.name is not None:
            return batches.find(connection, name=order.name)
    return []


def _other_content(key: str, batch: str) -> ConflictError:
    return ConflictError(
        f"idempotency key '{key}' belongs to batch {batch}, which has other content: "
        "choose another key"
    )


class _LineChecks:
    """What can be wrong with a line only in the light of its batch."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._no_template: bool | None = None
        self._canonical: dict[str, str] = {}

    def check(self, line: Line | BadLine) -> Line | BadLine:
        if isinstance(line, BadLine):
            return line
        if not self._order.ignore_line_model and self._is_foreign(line.model):
            return _bad(
                line,
                f"asks for model '{line.model}', and this batch is for '{self._order.model}': "
                "submit it apart, or give --ignore-line-model",
            )
        if "messages" in line.request and self._lacks_template():
            return _bad(
                line,
                f"is a chat, and model '{self._order.model}' has no chat template: give a "
                "prompt, or use a model that is made for chats",
            )
        return line

    def _is_foreign(self, model: str | None) -> bool:
        if model is None or model == self._order.model:
            return False
        if model not in self._canonical:
            self._canonical[model] = canonical_model(model)
        return self._canonical[model] != self._order.model

    def _lacks_template(self) -> bool:
        if self._no_template is None:
            self._no_template = chat_template_state(self._order.model) == "absent"
        return self._no_template


def _bad(line: Line, reason: str) -> BadLine:
    return BadLine(line.source, line.number, reason, line.custom_id)


class _Stored:
    """A batch while it is filled."""

    def __init__(self, database: Database, order: Order) -> None:
        self._database = database
        self._order = order
        self._digest = Digest(order)
        self._checks = _LineChecks(order)
        self._key: int | None = None
        self._uid = ids.new_uid()
        self._now = 0.0
        self._total = 0
        self._bad: list[BadLine] = []
        self._bad_count = 0

    def fill(self, lines: Iterable[Line | BadLine], on_progress: Callable[[int], None]) -> None:
        """Store every line. Raises InvalidInput at the end if some were bad."""
        stream = iter(lines)
        while part := list(islice(stream, SLICE)):
            self._store(part)
            on_progress(self._total)
        if self._bad and not self._order.skip_invalid:
            raise InvalidInput(self._bad, self._bad_count)
        if self._total == 0:
            raise InputError("there are no prompts in the input: nothing was queued")

    def activate(self) -> tuple[Batch, bool]:
        """Open the batch; it and True, or the batch that was there before it and False."""
        digest = self._digest.hexdigest()
        key = self._order.idempotency_key
        if key is None and self._order.name is not None:
            # So that two producers that submit the same at once end with one batch.
            key = f"name:{self._order.name}:{digest}"
        if self._key is None:
            raise InputError("there are no prompts in the input: nothing was queued")
        try:
            with self._database.write() as connection:
                batches.activate(
                    connection,
                    self._key,
                    total=self._total,
                    failed=self._bad_count,
                    digest=digest,
                    idempotency_key=key,
                )
                return batches.get(connection, self._uid), True
        except ConflictError:
            with self._database.read() as connection:
                taken = batches.find(connection, idempotency_key=key)
        if not taken or taken[0].digest != digest:
            raise _other_content(str(key), taken[0].id if taken else "?")
        return taken[0], False

    def discard(self) -> None:
        """Leave nothing behind; what can't be deleted now is swept away by recovery."""
        if self._key is None:
            return
        try:
            delete_batch(self._database, self._key)
        except PromptmillError:
            return

    def _store(self, part: list[Line | BadLine]) -> None:
        checked = [self._checks.check(line) for line in part]
        if self._bad and not self._order.skip_invalid:
            # The file is refused already: read on for its other bad lines, store nothing more.
            self._note(line for line in checked if isinstance(line, BadLine))
            return
        with self._database.write() as connection:
            if self._key is None:
                self._create(connection)
            key = self._key or 0
            checked = self._without_twins(connection, key, checked)
            self._note(line for line in checked if isinstance(line, BadLine))
            if self._bad and not self._order.skip_invalid:
                return
            new = [self._new_job(line) for line in checked]
            jobs.insert_slice(connection, key, new, now=self._now)
            batches.touch(connection, key)

    def _create(self, connection: Any) -> None:
        self._key = batches.create(
            connection,
            uid=self._uid,
            name=self._order.name,
            model=self._order.model,
            queue=ids.queue_name(self._order.model),
            priority=self._order.priority,
            params=self._order.params,
            metadata=self._order.metadata,
            chunk_size=self._order.chunk_size,
        )
        self._now = batches.get(connection, self._uid).created_at

    def _new_job(self, line: Line | BadLine) -> NewJob:
        self._total += 1
        self._digest.add(line)
        if isinstance(line, BadLine):
            return NewJob(self._total, b"{}", line.custom_id, line.reason)
        return NewJob(self._total, orjson.dumps(line.request), line.custom_id)

    def _note(self, bad: Iterator[BadLine]) -> None:
        for line in bad:
            self._bad_count += 1
            if len(self._bad) < _TOLD:
                self._bad.append(line)

    def _without_twins(
        self, connection: Any, key: int, checked: list[Line | BadLine]
    ) -> list[Line | BadLine]:
        """A custom_id that an earlier line has makes a line bad; it keeps none then."""
        named = {line.custom_id for line in checked if line.custom_id is not None}
        if not named:
            return checked
        seen = jobs.lines_of_custom_ids(connection, key, named)
        kept: list[Line | BadLine] = []
        for offset, line in enumerate(checked, start=1):
            name = line.custom_id
            if name is not None and name in seen:
                reason = f"custom_id '{name}' stands on line {seen[name]} too: make it unique"
                kept.append(BadLine(line.source, line.number, reason))
                continue
            if name is not None:
                seen[name] = self._total + offset
            kept.append(line)
        return kept
