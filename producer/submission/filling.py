"""A batch while it is filled: jobs in slices, then one transaction that opens it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TypeVar

from db import ids
from db.database import Database
from db.errors import ConflictError, InputError, NotFoundError, PromptmillError, ValueRefused
from db.patience import patiently
from db.queries import batches, jobs
from db.queries.deletion import delete_batch
from db.queries.jobs import NewJob
from db.records import Batch
from db.states import BatchState
from producer.input_columns.header import Header
from producer.intake import Reading
from producer.reading import BadLine, Line
from producer.submission.background import Background
from producer.submission.checks import LineChecks
from producer.submission.digest import Digest
from producer.submission.order import InvalidInput, Order, other_content
from producer.submission.slices import Slice, new_job, slices

T = TypeVar("T")

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
        self._header = Header()
        self._background = Background()
        self._key: int | None = None
        self._uid = ids.new_uid()
        self._now = 0.0
        self._total = 0
        self._bad: list[BadLine] = []
        self._bad_count = 0

    def fill(self, reading: Reading, on_progress: Callable[[int], None]) -> None:
        """Store every line. Raises InvalidInput at the end if some were bad."""
        self._header = reading.header
        for part in slices(reading.lines, LineChecks(self._order)):
            self._await_store(on_progress)
            # One slice is stored while the next one is read.
            self._background.run(partial(self._store, part))
        self._await_store(on_progress)
        if self._bad and not self._order.skip_invalid:
            raise InvalidInput(self._bad, self._bad_count)
        if self._total == 0:
            raise InputError("there are no prompts in the input: nothing was queued")

    @property
    def digest(self) -> str:
        """Of all that was filled in."""
        return self._digest.hexdigest(self._header.columns)

    def activate(self, *, again: bool = False) -> tuple[Batch, bool]:
        """Open the batch; it and True, or the batch that was there before it and False.

        `again`: though there is one of the same content.
        """
        digest = self.digest
        key = self._order.idempotency_key
        if key is None and self._order.name is not None:
            # So that two producers that submit the same at once end with one batch.
            own = f":{self._uid}" if self._order.fresh or again else ""
            key = f"name:{self._order.name}:{digest}{own}"
        if self._key is None:
            raise InputError("there are no prompts in the input: nothing was queued")
        try:
            return self._patiently(lambda: self._open(digest, key)), True
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
                    input_columns=self._header.columns,
                )
                batch = batches.get(connection, self._uid)
            return batch

    def _await_store(self, on_progress: Callable[[int], None]) -> None:
        self._background.wait()
        if self._total:
            on_progress(self._total)

    def discard(self) -> None:
        """Leave nothing behind; what can't be deleted now is swept away by recovery."""
        self._background.abandon()
        if self._key is None:
            return
        try:
            delete_batch(self._database, self._key)
        except PromptmillError:
            return

    def _store(self, part: Slice) -> None:
        # A file that is refused already is read on for its other bad lines; no more is stored.
        if self._storing:
            part = self._written(part)
        self._note(part.bad)
        self._digest.add(part.jobs)
        self._total += len(part.jobs)

    @property
    def _storing(self) -> bool:
        return not self._bad or self._order.skip_invalid

    def _written(self, part: Slice) -> Slice:
        """Store it, unless some are bad and must not be; it, after a look at the whole batch."""
        if self._key is None:
            self._key = self._patiently(self._create)
        key = self._key
        if not part.bad or self._order.skip_invalid:
            try:
                self._patiently(lambda: self._write(key, part.jobs))
            except ValueRefused:
                # Most likely a custom_id that an earlier line has: the index alone looks for them.
                pass
            else:
                return part
        apart = self._patiently(lambda: self._without_twins(key, part))
        if not apart.bad or self._order.skip_invalid:
            self._patiently(lambda: self._write(key, apart.jobs))
        return apart

    def _patiently(self, call: Callable[[], T]) -> T:
        return patiently(call, self._patience, stop=self._background.abandoned)

    def _write(self, key: int, new: list[NewJob]) -> None:
        """May be called again where nobody knows whether it was done."""
        with self._database.write() as connection:
            if jobs.last_line(connection, key) == self._total:
                jobs.insert_slice(connection, key, new, now=self._now)
            batches.touch(connection, key)

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
                    mode=self._order.mode,
                )
                found = batches.get(connection, self._uid)
        self._now = found.created_at
        return found.key

    def _note(self, bad: list[BadLine]) -> None:
        self._bad_count += len(bad)
        self._bad += bad[: _TOLD - len(self._bad)]

    def _without_twins(self, key: int, part: Slice) -> Slice:
        """A custom_id that an earlier line has makes a line bad; it keeps none then."""
        named = {line.custom_id for line in part.lines if line.custom_id is not None}
        with self._database.read() as connection:
            seen = jobs.lines_of_custom_ids(connection, key, named, before=self._total + 1)
        kept: list[Line | BadLine] = []
        for number, line in enumerate(part.lines, start=self._total + 1):
            name = line.custom_id
            if name is not None and name in seen:
                reason = f"custom_id '{name}' is also that of prompt {seen[name]}: make it unique"
                kept.append(BadLine(line.source, line.number, reason, columns=line.columns))
                continue
            if name is not None:
                seen[name] = number
            kept.append(line)
        return Slice(kept, list(map(new_job, count(self._total + 1), kept)))
