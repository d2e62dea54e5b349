"""No process of an engine's outlives the worker, however that dies.

vLLM's engine process notices nothing when the process that started it is killed, and a process
that shares a model notices nothing while it waits for its GPU: they would keep the device's
memory for ever. So a small process of ours (this file, run by itself) holds the read end of a pipe
from the worker. While the engine starts it looks which processes come up; when the pipe ends it
kills those that are left. The kernel ends the pipe whatever becomes of the worker.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from multiprocessing import resource_tracker

import psutil

#: Words to the guard: processes come up now, and no more do.
_WATCH, _REST = b"+", b"-"

#: Seconds between two looks while processes come up.
_LOOK = 0.2


class Guard:
    """The worker's side."""

    def __init__(self) -> None:
        """Start the guard: only processes that come up after it are its own."""
        # multiprocessing's, for the whole worker: it leaves by itself, with its last user. Clocks
        # are coarse, so that it may seem no older than the guard.
        resource_tracker.ensure_running()
        tracker = getattr(resource_tracker._resource_tracker, "_pid", None)  # noqa: SLF001
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            [sys.executable, "-I", __file__, str(os.getpid()), str(tracker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # What is told to the worker's whole group, such as Ctrl-C, is not for it.
            start_new_session=True,
        )
        self._hear()

    def watch(self) -> None:
        """Processes come up from now on."""
        self._say(_WATCH)

    def rest(self) -> None:
        """No more processes come up."""
        self._say(_REST)

    def close(self) -> None:
        """Have it kill whatever is left, and leave. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _say(self, word: bytes) -> None:
        # One that somebody killed must not take the engine with it.
        with contextlib.suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.write(word)
                self._hear()

    def _hear(self) -> None:
        """Wait until it has looked."""
        if self._process.stdout is not None:
            self._process.stdout.read(1)


def main() -> None:
    """The guard's side: until the pipe ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    worker, born = int(sys.argv[1]), psutil.Process().create_time()
    known: set[psutil.Process] = set()
    spared = {os.getpid(), *(int(pid) for pid in sys.argv[2:] if pid.isdigit())}
    watching = False
    _looked()
    while True:
        heard, _, _ = select.select([sys.stdin], [], [], _LOOK if watching else None)
        if heard:
            word = os.read(sys.stdin.fileno(), 1)
            if not word:
                break
            watching = word == _WATCH
        known |= _descendants(worker, born, spared)
        if heard:
            _looked()
    for process in known:
        # It looks first whether the number is another process's by now.
        with contextlib.suppress(psutil.Error):
            process.kill()


def _looked() -> None:
    with contextlib.suppress(BrokenPipeError):  # the worker may be dead by now
        os.write(sys.stdout.fileno(), b".")


def _descendants(worker: int, born: float, spared: set[int]) -> set[psutil.Process]:
    """The worker's processes that are younger than the guard."""
    found = set()
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(worker).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.pid not in spared and process.create_time() >= born:
                    found.add(process)
    return found


if __name__ == "__main__":
    main()
