"""A batch while it is filled: jobs in slices, then one transaction that opens it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import orjson

from db import ids
from db.database import Database
from db.errors import ConflictError, InputError, NotFoundError, PromptmillError
from db.patience import patiently
from db.queries import batches, jobs
from db.queries.deletion import delete_batch
from db.queries.jobs import NewJob
from db.records import Batch
from db.states import BatchState
from producer.reading import BadLine, Line
from producer.submission.checks import LineChecks
from producer.submission.digest import Digest
from producer.submission.order import InvalidInput, Order, other_content

#: Jobs stored in one transaction: a second of work, so that SQLite's other writers get a turn.
SLICE = 5_000
#: Bad lines that an error tells of.
_TOLD = 1_000


class Filling:
    """`fill`, then `activate`, or `discard`."""

    def __init__(self, database: Database, order: Order, patience: float) -> None:
        """A database that goes away is waited for, for `patience` seconds at most."""
        self._database = database
        self._order = order
        self._patience = patience
        self._digest = Digest(order)
        self._checks = LineChecks(order)
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
            return patiently(lambda: self._open(digest, key), self._patience), True
        except ConflictError:
            with self._database.read() as connection:
                taken = batches.find(connection, idempotency_key=key)
        if not taken or taken[0].digest != digest:
            raise other_content(str(key), taken[0].id if taken else "?")
        return taken[0], False

    def _open(self, digest: str, key: str | None) -> Batch:
        """May be called again where nobody knows whether it was done."""
        with self._database.write() as connection:
            batch = batches.get(connection, self._uid)
            if batch.state == BatchState.VALIDATING:
                batches.activate(
                    connection,
                    batch.key,
                    total=self._total,
                    failed=self._bad_count,
                    digest=digest,
                    idempotency_key=key,
                    expires_after=self._order.expires,
                )
                batch = batches.get(connection, self._uid)
            return batch

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
        if not self._refused:
            if self._key is None:
                self._key = patiently(self._create, self._patience)
            key = self._key
            checked = patiently(lambda: self._write(key, checked), self._patience)
        # A file that is refused already is read on for its other bad lines; no more is stored.
        self._note(line for line in checked if isinstance(line, BadLine))
        for line in checked:
            self._digest.add(line)
        self._total += len(checked)

    @property
    def _refused(self) -> bool:
        return bool(self._bad) and not self._order.skip_invalid

    def _write(self, key: int, checked: list[Line | BadLine]) -> list[Line | BadLine]:
        """Store them, unless some are bad and must not be; them, after a look at the whole batch.

        May be called again where nobody knows whether it was done.
        """
        with self._database.write() as connection:
            checked = self._without_twins(connection, key, checked)
            bad = any(isinstance(line, BadLine) for line in checked)
            if not bad or self._order.skip_invalid:
                if jobs.last_line(connection, key) == self._total:
                    new = [self._new_job(self._total + n, one) for n, one in enumerate(checked, 1)]
                    jobs.insert_slice(connection, key, new, now=self._now)
                batches.touch(connection, key)
        return checked

    def _create(self) -> int:
        """The batch's key; may be called again."""
        with self._database.write() as connection:
            try:
                found = batches.get(connection, self._uid)
            except NotFoundError:
                batches.create(
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
                found = batches.get(connection, self._uid)
        self._now = found.created_at
        return found.key

    def _new_job(self, number: int, line: Line | BadLine) -> NewJob:
        if isinstance(line, BadLine):
            return NewJob(number, b"{}", line.custom_id, line.reason)
        return NewJob(number, orjson.dumps(line.request), line.custom_id)

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
        seen = jobs.lines_of_custom_ids(connection, key, named, before=self._total + 1)
        kept: list[Line | BadLine] = []
        for offset, line in enumerate(checked, start=1):
            name = line.custom_id
            if name is not None and name in seen:
                reason = f"custom_id '{name}' is also that of prompt {seen[name]}: make it unique"
                kept.append(BadLine(line.source, line.number, reason))
                continue
            if name is not None:
                seen[name] = self._total + offset
            kept.append(line)
        return kept
