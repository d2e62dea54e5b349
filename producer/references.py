"""What a user calls a batch or a job: its id, or the name that it was submitted under.

    bk3v9xq2h7mz       a batch by its id
    bk3v9xq2h7mz-42    its job 42
    nightly            the newest batch of this name
    nightly-42         its job 42, where only one batch has the name

An id goes before a name, and a batch's whole name before a shorter name with a line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from db.errors import ConflictError, NotFoundError
from db.ids import job_id, parse_id
from db.queries import batches
from db.records import Batch
from producer.display import clock

#: Batches of one name that a message lists.
_CANDIDATES = 5
#: Characters of a name that a message repeats.
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Reference:
    """A batch, or a job of it."""

    uid: str
    #: None: the batch itself.
    line: int | None = None
    #: What to tell the user about the choice; None: there was none.
    remark: str | None = None


def resolve(
    connection: Connection, text: str, *, jobs: bool = True, unique: bool = False
) -> Reference:
    """What `text` names. Raises NotFoundError.

    `jobs`: a job may be meant. `unique`: raises ConflictError where several batches have the
    name; otherwise the newest is taken, with a remark.
    """
    text = text.strip()
    by_id = _by_id(connection, text)
    if by_id is not None:
        return by_id
    named, count = batches.named(connection, text, _CANDIDATES)
    of_job = _job_of_named(connection, text) if jobs or not named else None
    if named:
        if unique and count > 1:
            raise _ambiguous(text, named, count)
        if unique and of_job is not None:
            raise ConflictError(
                f"'{_short(text)}' is the name of batch {named[0].id}, and could be job "
                f"{of_job.line} of batch {of_job.uid}: give an id"
            )
        return Reference(named[0].id, None, _remark(text, named, count, of_job))
    if of_job is not None:
        return of_job
    return _missing(text, jobs=jobs)


def _by_id(connection: Connection, text: str) -> Reference | None:
    """By an id that exists; None: it is none."""
    try:
        uid, line = parse_id(text)
        batches.get(connection, uid)
    except NotFoundError:
        return None
    return Reference(uid, line)


def _missing(text: str, *, jobs: bool) -> Reference:
    """Raises NotFoundError; but of a job where none may be meant, the caller says so."""
    try:
        uid, line = parse_id(text)
    except NotFoundError:
        raise NotFoundError(
            f"no batch has the id or the name '{_short(text)}': 'promptmill list' shows the "
            "batches, and a job is BATCH-LINE, as in bk3v9xq2h7mz-42"
        ) from None
    if line is not None and not jobs:
        return Reference(uid, line)
    raise NotFoundError(f"no batch {uid}: 'promptmill list' shows the batches that there are")


def _job_of_named(connection: Connection, text: str) -> Reference | None:
    """`NAME-LINE`, of the one batch of that name that has this line. Raises ConflictError."""
    match = re.fullmatch(r"(.+)-([1-9][0-9]{0,9})", text, re.DOTALL)
    if match is None:
        return None
    named, count = batches.named(connection, match[1], _CANDIDATES)
    line = int(match[2])
    if not named:
        return None
    if count > 1:
        raise _ambiguous(match[1], named, count, line)
    return Reference(named[0].id, line) if line <= named[0].total else None


def _remark(name: str, named: Sequence[Batch], count: int, of_job: Reference | None) -> str | None:
    batch = named[0]
    if count > 1:
        return (
            f"{count:,} batches are named '{_short(name)}': this is the newest, {batch.id} of "
            f"{clock(batch.created_at)}"
        )
    if of_job is not None and of_job.line is not None:
        job = job_id(of_job.uid, of_job.line)
        return f"'{_short(name)}' is the name of batch {batch.id}; for the job, give {job}"
    return None


def _ambiguous(
    name: str, named: Sequence[Batch], count: int, line: int | None = None
) -> ConflictError:
    suffix = "" if line is None else f"-{line}"
    shown = [f"{batch.id}{suffix} ({batch.state}, {clock(batch.created_at)})" for batch in named]
    more = f" and {count - len(named):,} more" if count > len(named) else ""
    return ConflictError(
        f"{count:,} batches are named '{_short(name)}': give an id, one of {', '.join(shown)}{more}"
    )


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"…{text[1 - _SHOWN :]}"
