"""A worker as a child process: what `promptmill run` generates with.

It ends with its parent, however that dies: it holds the other end of a pipe.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import takewhile
from pathlib import Path

from db.errors import EngineError, PromptmillError, UsageError
from db.ids import new_mark, worker_name
from db.records import Batch
from db.wording import how_it_ended, joined

#: Bytes of its log's end that may hold the reason of its death.
_TAIL = 4096
_MARK, _INDENT = "promptmill worker: ", "  "
#: What its log says while it loads its model, and once it has: a time, a level, text and action.
_LOADING = re.compile(r"\S+ \S+ INFO (?P<text>.*) action=(?P<action>loading|ready)\b")
#: Logs are called so, and the time; the newest of them are kept.
_LOG, _KEPT_LOGS = "worker", 20
#: Workers that may die in a row with no job done in between.
_DEATHS = 3


class LocalWorker:
    """One worker process; its log goes to a file."""

    def __init__(self, environment: Mapping[str, str], log: Path, after: str | None = None) -> None:
        """`environment`: settings besides this process's own. `after`: the name of the one that
        died, in whose place it comes.
        """
        self.log = log
        self._stopping = False
        self._mark = new_mark()
        place = [] if after is None else ["--after", after]
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _clear(log.parent)
        #: Where its part of the log begins: bytes.
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "worker",
                    "--leave-with-parent",
                    "--mark",
                    self._mark,
                    *place,
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                # Ctrl-C reaches the parent, which tells the child once.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def name(self) -> str:
        """What the database knows it by."""
        return worker_name(self.pid, self._mark)

    def check(self) -> None:
        """Raise with the reason if it has ended by itself."""
        code = self._process.poll()
        if code is not None:
            raise self._death(code)

    def loading(self) -> str | None:
        """How far it says it has come with its model; None: it is ready, or has said nothing."""
        said = [match for line in _last_lines(self.log) if (match := _LOADING.match(line))]
        return said[-1]["text"] if said and said[-1]["action"] == "loading" else None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def begin_stop(self) -> None:
        """Have it finish and end. Once: a second time is a request to hurry."""
        if self.alive and not self._stopping:
            self._stopping = True
            self._process.terminate()

    def stop(self, patience: float) -> None:
        """Have it finish, for `patience` seconds at most, then end it."""
        self.begin_stop()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def hurry(self) -> None:
        """A second word: hand back what is unfinished, and end."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def _death(self, code: int) -> PromptmillError:
        reason, *others = _last_words(self.log) or [f"it {how_it_ended(code)}"]
        failure = "go on" if self._was_ready() else "start"
        faults = [f"the worker could not {failure}: {reason} (its log: {self.log})", *others]
        return UsageError(*faults) if code == UsageError.exit_code else EngineError(joined(faults))

    def _was_ready(self) -> bool:
        """Whether it has said that its model is loaded."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            said = (_LOADING.match(line.decode("utf-8", "replace")) for line in file)
            return any(match is not None and match["action"] == "ready" for match in said)


class KeptWorker:
    """A local worker that is replaced when it dies, as long as the batch gets on."""

    def __init__(
        self, environment: Mapping[str, str], home: Path, tell: Callable[[str], None]
    ) -> None:
        """`tell` hears of every death in one line."""
        self._start = partial(LocalWorker, environment, _log_path(home))
        self._tell = tell
        self._worker = self._start()
        self._deaths = 0
        self._done = 0
        #: Whether it was told to hurry.
        self.hurried = False

    def look(self, batch: Batch) -> None:
        """Replace it if it has died. Raises with the reason where that does not help."""
        if batch.done > self._done:
            self._done, self._deaths = batch.done, 0
        try:
            self._worker.check()
        except PromptmillError as error:
            self._deaths += 1
            # One that was set up wrongly, or never began, can't load the model: another one could
            # not either. (That the batch has begun may be another worker's doing.)
            hopeless = isinstance(error, UsageError) or batch.started_at is None
            if hopeless or self._deaths > _DEATHS:
                raise
            self._tell(f"{error.message}; another one takes its place")
            self._worker = self._start(after=self._worker.name)

    def loading(self) -> str | None:
        """How far it says it has come with its model; None: it is ready, or has said nothing."""
        return self._worker.loading()

    @property
    def alive(self) -> bool:
        return self._worker.alive

    def begin_stop(self) -> None:
        """Have it finish and end."""
        self._worker.begin_stop()

    def stop(self, patience: float) -> None:
        """Have it finish, for `patience` seconds at most."""
        self._worker.stop(patience)

    def hurry(self) -> None:
        """Have it hand back what is unfinished, and end. Safe in a signal handler."""
        self.hurried = True
        self._worker.hurry()


def _last_words(log: Path) -> list[str]:
    """The last line that the worker said itself, and the indented ones that belong to it."""
    lines = _last_lines(log)
    marked = [number for number, line in enumerate(lines) if line.startswith(_MARK)]
    if not marked:
        return []
    first, *rest = lines[marked[-1] :]
    others = takewhile(lambda line: line.startswith(_INDENT), rest)
    return [first.removeprefix(_MARK), *(line.removeprefix(_INDENT) for line in others)]


def _last_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        return file.read().decode("utf-8", "replace").splitlines()


def _clear(folder: Path) -> None:
    """Keep the newest logs only; what somebody else removes meanwhile is removed."""
    # One more is about to begin.
    for old in sorted(folder.glob(f"{_LOG}-*.log"))[: 1 - _KEPT_LOGS]:
        old.unlink(missing_ok=True)


def _log_path(home: Path) -> Path:
    """The log of this process's workers."""
    return home / "logs" / f"{_LOG}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
