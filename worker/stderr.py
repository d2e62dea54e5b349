"""What a worker says to people on standard error, besides its log."""

from __future__ import annotations

import sys

#: `producer.local_worker` finds the lines by it.
_MARK = "promptmill worker: "


def say(line: str, *others: str) -> None:
    """Print a line that is marked as the worker's, and others that belong to it."""
    sys.stderr.write("".join(f"{text}\n" for text in (_MARK + line, *others)))
