"""Bad lines as messages: those that are bad for the same reason are one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from db.wording import count_of
from producer.reading import BadLine

#: Runs of lines that a message lists.
_RUNS = 3


@dataclass(frozen=True, slots=True)
class Group:
    """Lines of one file with the same reason."""

    message: str
    count: int


def grouped(bad: Iterable[BadLine]) -> list[Group]:
    """The groups, in the order of their first lines."""
    groups: dict[tuple[str, str, str], list[BadLine]] = {}
    for line in bad:
        groups.setdefault((line.source, line.unit, line.reason), []).append(line)
    return [Group(_message(lines), len(lines)) for lines in groups.values()]


def _message(lines: Sequence[BadLine]) -> str:
    """`FILE: lines 1-3, 7: REASON`."""
    first = lines[0]
    if len(lines) == 1:
        return first.message
    numbers = _numbers([line.number for line in lines])
    return " ".join(f"{first.source}: {first.unit}s {numbers}: {first.reason}".splitlines())


def _numbers(numbers: Sequence[int]) -> str:
    """`1-3, 7, 9-12 and 4 more`."""
    gaps = [index for index, (one, other) in enumerate(pairwise(numbers), 1) if other != one + 1]
    starts = [0, *gaps, len(numbers)]
    runs = [numbers[start:end] for start, end in pairwise(starts)]
    listed = ", ".join(_run(run) for run in runs[:_RUNS])
    left = sum(map(len, runs[_RUNS:]))
    return f"{listed} and {left:,} more" if left else listed


def _run(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    return f"{first}" if first == last else f"{first}-{last}"


def refusal(groups: Sequence[Group], count: int) -> str:
    """What an error says of `count` bad lines, of which these are the first groups."""
    first = groups[0]
    left = count - first.count
    these = "this" if first.count == 1 else "these"
    many = f", for {these} and {count_of(left, 'more bad line')}" if left else ""
    return f"{first.message}; nothing was queued{many}"
