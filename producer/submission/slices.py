"""Lines, checked and made ready to be stored, in slices of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from db.exact_json import dumps
from db.queries.jobs import NewJob
from producer.reading import BadLine, Line
from producer.submission.checks import LineChecks

#: Lines stored in one transaction: a fraction of a second, so that SQLite's other writers get
#: a turn.
SLICE = 20_000
#: Characters of requests in one transaction, so that memory holds long prompts too.
_CHARACTERS = 2**24
#: Lines between two looks at those, at most; before the first one nobody knows how long they are.
_LOOK, _FIRST_LOOK = 200, 10

_EMPTY_REQUEST = "{}"


class Slice(NamedTuple):
    """Lines that follow each other, and a job for each."""

    lines: list[Line | BadLine]
    jobs: list[NewJob]

    @property
    def bad(self) -> list[BadLine]:
        return [line for line in self.lines if isinstance(line, BadLine)]


def slices(lines: Iterable[Line | BadLine], checks: LineChecks) -> Iterator[Slice]:
    """All of them, as jobs 1 … n."""
    stream = iter(lines)
    part, size, done, look = Slice([], []), 0, 0, _FIRST_LOOK
    while piece := [
        checks.check(line) for line in islice(stream, min(look, SLICE - len(part.lines)))
    ]:
        jobs = list(map(new_job, range(done + 1, done + 1 + len(piece)), piece))
        part.lines.extend(piece)
        part.jobs.extend(jobs)
        done += len(piece)
        added = sum([len(job.request) + len(job.columns or "") for job in jobs])
        size += added
        if len(part.lines) >= SLICE or size >= _CHARACTERS:
            yield part
            part, size = Slice([], []), 0
        # Of long lines, fewer are read before the next look.
        look = max(1, min(_LOOK, _CHARACTERS // 4 * len(piece) // max(1, added)))
    if part.lines:
        yield part


def new_job(number: int, line: Line | BadLine) -> NewJob:
    """The job that a line becomes; a bad one has no request, and its reason for an error."""
    if isinstance(line, BadLine):
        return NewJob(number, _EMPTY_REQUEST, line.custom_id, line.reason, line.columns)
    return NewJob(number, dumps(line.request).decode(), line.custom_id, None, line.columns)
