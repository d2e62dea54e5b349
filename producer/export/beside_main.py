"""The other process of `beside`: a filter, pages in and their JSON Lines out, both as pickles.

The layout of the records comes before the first page.

It ends with its input, so also when whoever started it is killed.
"""

from __future__ import annotations

import pickle
import signal
import sys
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

from db.pages import Page
from producer.export.jsonl import page_lines
from producer.export.layout import Layout

_Waiting = SimpleQueue[Page | None]


def main() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads us has been killed
    with suppress(EOFError, pickle.UnpicklingError):
        _write(pickle.load(sys.stdin.buffer))  # noqa: S301 - from our own parent


def _write(layout: Layout) -> None:
    waiting: _Waiting = SimpleQueue()
    # Whoever writes to us reads nothing meanwhile: pages are taken while lines wait for a reader.
    Thread(target=_take, args=[waiting], daemon=True).start()
    while (page := waiting.get()) is not None:
        pickle.dump(page_lines(page, layout), sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _take(waiting: _Waiting) -> None:
    # A page that is cut off is the end, too.
    with suppress(EOFError, pickle.UnpicklingError):
        while True:
            waiting.put(pickle.load(sys.stdin.buffer))  # noqa: S301 - from our own parent
    waiting.put(None)


if __name__ == "__main__":
    main()
