"""How a batch is cut into chunks, and when a job runs alone: pure arithmetic.

Guided self-scheduling (Polychronopoulos and Kuck, 1987): full chunks first, smaller ones towards
the end, so that workers of different speed finish together and none holds much when the queue
runs dry.
"""

from __future__ import annotations

from collections.abc import Iterator

#: The tail begins where fewer than this many full chunks are left.
_TAIL = 32
#: A chunk costs two transactions: below this size they would dominate.
_SMALLEST = 4


#: Jobs of a full chunk: small enough to spread, large enough to be cheap …
_USUAL, _LARGEST = 64, 1024
#: … and so many chunks are enough for any number of workers.
_PLENTY = 512


def full_chunk(total: int) -> int:
    """Jobs of a full chunk in a batch of `total`, where nobody says: 64 … 1024."""
    return min(_LARGEST, max(_USUAL, total // _PLENTY))


def chunk_ranges(total: int, chunk_size: int) -> Iterator[tuple[int, int]]:
    """Cut lines 1 … total into (first, last) ranges, both included, in order."""
    first = 1
    while first <= total:
        left = total - first + 1
        size = min(chunk_size, max(min(_SMALLEST, chunk_size), left // _TAIL), left)
        yield first, first + size - 1
        first += size


def is_last_attempt(attempts: int, max_attempts: int) -> bool:
    """Whether a job that failed `attempts` times has one attempt left: that one it runs alone."""
    return attempts > 0 and attempts >= max_attempts - 1
