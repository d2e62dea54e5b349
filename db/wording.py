"""How messages put things."""

from __future__ import annotations

import signal
from collections.abc import Sequence

#: Faults that a message of one line names.
_NAMED = 3
#: Faults that are shown a line each.
_LISTED = 20


def count_of(number: int, thing: str) -> str:
    """`1 job`, `2,000 jobs`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def how_it_ended(code: int) -> str:
    """A process with this exit code: `ended with code 70`, `was killed (SIGKILL)`."""
    if code >= 0:
        return f"ended with code {code}"
    known = {int(one): one.name for one in signal.Signals}
    return f"was killed ({known.get(-code, f'signal {-code}')})"


def joined(faults: Sequence[str]) -> str:
    """Several faults in one message: `first; also: second; also: third; and 2 more`."""
    named = "; also: ".join(faults[:_NAMED])
    return named if len(faults) <= _NAMED else f"{named}; and {len(faults) - _NAMED} more"


def listed(faults: Sequence[str]) -> list[str]:
    """Lines that show several faults: the first, below it the others, at last `and 2 more`."""
    first, *others = faults[:_LISTED]
    lines = [first, *(f"  {fault}" for fault in others)]
    return lines if len(faults) <= _LISTED else [*lines, f"  and {len(faults) - _LISTED:,} more"]
