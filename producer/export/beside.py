"""JSON Lines by a second process, while this one reads the next rows.

For SQLite, which works in this process: there reading and writing would take turns, where the
server of PostgreSQL is a second process already.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import IO, cast

from db.errors import OutputError
from db.pages import Page
from producer.export import jsonl
from producer.export.layout import Layout
from producer.export.local import write_all

#: Pages that are written here: for fewer, a process would cost more than it saves.
FIRST = 40
#: Bytes of pages that are on their way to the other process, and back as lines.
_AHEAD = 4 << 20


def lines(pages: Iterable[Page], layout: Layout) -> Generator[tuple[int, bytes]]:
    """As `jsonl.lines`; close it, so that no process stays. Raises OutputError if that is lost."""
    left = iter(pages)
    yield from jsonl.lines(islice(left, FIRST), layout)
    following = next(left, None)
    if following is None:
        return
    left = chain([following], left)
    # What an expansion counts, this process must know.
    here = os.cpu_count() == 1 or layout.expansion is not None
    yield from jsonl.lines(left, layout) if here else _beside(left, layout)


def _beside(pages: Iterable[Page], layout: Layout) -> Generator[tuple[int, bytes]]:
    waiting: deque[tuple[int, int]] = deque()
    ahead = 0
    with _writer() as (to_it, from_it):
        _send(to_it, pickle.dumps(layout))
        for page in pages:
            packed = pickle.dumps(page)
            # Never for ever, as it takes pages also while it waits for us to take its lines.
            _send(to_it, packed)
            waiting.append((len(page), len(packed)))
            ahead += len(packed)
            while ahead > _AHEAD:
                count, size = waiting.popleft()
                ahead -= size
                yield count, _next(from_it)
        for count, _ in waiting:
            yield count, _next(from_it)


@contextmanager
def _writer() -> Iterator[tuple[int, IO[bytes]]]:
    """Where it reads the layout and pages, as pickles, and where it writes the pages' lines.

    It is killed at the end.
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "producer.export.beside_main"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us
    ) as process:
        try:
            yield cast("IO[bytes]", process.stdin).fileno(), cast("IO[bytes]", process.stdout)
        finally:
            process.kill()


def _send(target: int, packed: bytes) -> None:
    try:
        write_all(target, packed)
    except BrokenPipeError:
        raise _lost() from None


def _next(source: IO[bytes]) -> bytes:
    try:
        made: bytes = pickle.load(source)  # noqa: S301 - from our own process
    except (EOFError, pickle.UnpicklingError):
        raise _lost() from None
    return made


def _lost() -> OutputError:
    return OutputError("the process that writes JSON Lines has died: try again")
