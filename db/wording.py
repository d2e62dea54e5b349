"""How messages put things."""

from __future__ import annotations

import signal


def count_of(number: int, thing: str) -> str:
    """`1 job`, `2,000 jobs`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def how_it_ended(code: int) -> str:
    """A process with this exit code: `ended with code 70`, `was killed (SIGKILL)`."""
    if code >= 0:
        return f"ended with code {code}"
    known = {int(one): one.name for one in signal.Signals}
    return f"was killed ({known.get(-code, f'signal {-code}')})"
