"""A command in a real terminal of a given size: a pty, whose screen pyte keeps."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import pyte

from tests.support.processes import command, environment, eventually

#: Lines above the screen that are kept.
_HISTORY = 2000


class Terminal:
    """`promptmill ARGUMENTS` on a screen; what it prints can be waited for."""

    def __init__(
        self, *arguments: str, env: Mapping[str, str], columns: int = 80, lines: int = 24
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, lines, history=_HISTORY, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        sized = {"COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            command(*arguments),
            env=environment({**env, **sized}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(10)
        os.close(self._master)

    def text(self) -> str:
        """All that the screen shows, and what has left it at the top."""
        with self._lock:
            above = [
                "".join(line[column].data for column in range(self._screen.columns))
                for line in self._screen.history.top
            ]
            shown = [*above, *self._screen.display]
        return "\n".join(line.rstrip() for line in shown).strip()

    def wait_for(self, look: Callable[[str], object], *, what: str) -> str:
        """The screen, as soon as `look` accepts it."""

        def accepted() -> str | None:
            text = self.text()
            return text if look(text) else None

        return eventually(accepted, what=f"{what} on the screen")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def ended(self, timeout: float = 60) -> str:
        """Wait for the end; the screen."""
        self.process.wait(timeout)
        self._reader.join(10)
        return self.text()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other side is closed
                return
            if not data:
                return
            with self._lock:
                self._stream.feed(data)
