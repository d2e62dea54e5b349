"""Follow a batch: two live lines in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from db.records import Batch, Pace
from producer.activity import activity, percent, speed, standing
from producer.columns import shortened
from producer.display import note, printable
from producer.time_left import Pace as Samples

#: Seconds between two lines of a log, at most; and at least, where a tenth is done.
_LOG_EVERY, _LOG_TENTH = 30.0, 5.0
#: Cells of the bar, at most and at least.
_WIDEST_BAR, _NARROWEST_BAR = 40, 8
#: Cells that stay free at a line's end: a terminal that echoes ^C there must not begin a new line,
#: which the erasing of these lines would not count.
_ECHO = 2
#: Cells that a model keeps in a line that is too long.
_LEAST_MODEL = 20
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class View(Protocol):
    """Shows how a batch goes."""

    def show(self, batch: Batch, pace: Pace | None, words: str | None, left: float | None) -> None:
        """`words`: why nothing is generated; `left`: seconds, where they can be told."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None:
        """Take it away. Idempotent."""
        ...


class BatchProgress:
    """Where the batch stands: done, failed, tokens a second, time left."""

    def __init__(self, view: View | None = None, *, own: Callable[[], str] | None = None) -> None:
        """`own` says what our own worker does while it does not generate, such as loading."""
        self._view = view or (LiveView() if sys.stderr.isatty() else LogView())
        self._own = own
        self._samples = Samples()

    def __enter__(self) -> Self:
        self._view.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take it away. Idempotent."""
        self._view.stop()

    def __call__(
        self, batch: Batch, pace: Pace | None = None, *, ending: str | None = None
    ) -> None:
        """Show where the batch stands now; `ending`: how it is being stopped."""
        words = ending or activity(batch, pace, own=self._own and self._own())
        running = pace.running if pace is not None else 0
        workers, rate = (pace.working, pace.tokens_per_second) if pace is not None else (0, 0.0)
        self._samples.add(
            time.monotonic(), batch.done, active=words is None, workers=workers, rate=rate
        )
        left = None
        if words is None and not batch.finished:
            left = self._samples.time_left(batch.total, running)
        self._view.show(batch, pace, words, left)


class LiveView:
    """Two lines that are drawn again and again, as wide as the terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(
            self, console=self._console, transient=True, refresh_per_second=8, redirect_stdout=False
        )
        self._begun = time.monotonic()
        self._state: tuple[Batch, Pace | None, str | None, float | None] | None = None

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def show(self, batch: Batch, pace: Pace | None, words: str | None, left: float | None) -> None:
        self._state = batch, pace, words, left

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        if self._state is not None:
            elapsed = time.monotonic() - self._begun
            width = options.max_width - _ECHO
            for line in live_lines(*self._state, elapsed=elapsed, width=width):
                yield Text(line, no_wrap=True, overflow="ellipsis")


class LogView:
    """A line every 30 seconds, or at each tenth: a log shows life, and stays short."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, tell: Callable[[str], None] = note
    ) -> None:
        self._clock = clock
        self._tell = tell
        self._last = clock()
        self._tenth = 0

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def show(self, batch: Batch, pace: Pace | None, words: str | None, left: float | None) -> None:
        if batch.finished:
            return
        silent = self._clock() - self._last
        tenth = percent(batch) // 10
        if silent >= _LOG_EVERY or (tenth > self._tenth and silent >= _LOG_TENTH):
            parts = [standing(batch), words] if words else [standing(batch)]
            if not words:
                parts += [part for part in speed(batch, pace, left) if "failed" not in part]
            self._tell(f"{time.strftime('%H:%M:%S')} {batch.id}: {', '.join(filter(None, parts))}")
            self._last, self._tenth = self._clock(), tenth


def live_lines(
    batch: Batch,
    pace: Pace | None,
    words: str | None,
    left: float | None,
    *,
    elapsed: float,
    width: int,
) -> list[str]:
    """The two lines: how much is done, and how it goes."""
    spinner = _SPINNER[int(elapsed * 8) % len(_SPINNER)]
    clock = _elapsed(elapsed)
    if not batch.total:
        first = f"{spinner} {batch.id}  {clock}"
    else:
        counts = f"{batch.done:,}/{batch.total:,}  {percent(batch)} %"
        room = width - len(f"{spinner} {batch.id}    {counts}  {clock}")
        bar = _bar(batch.done / batch.total, min(_WIDEST_BAR, room))
        first = "  ".join(filter(None, [f"{spinner} {batch.id}", bar, counts, clock]))
    second = words or ", ".join(speed(batch, pace, left))
    return [
        shortened(first, width, "end"),
        f"  {_fitted(printable(second), batch.model, width - 2)}" if second else "",
    ]


def _fitted(words: str, model: str, width: int) -> str:
    """In `width` cells: a long model loses its start before the words around it lose anything."""
    excess = cell_len(words) - width
    room = cell_len(model) - excess
    if excess > 0 and room >= _LEAST_MODEL:
        words = words.replace(model, shortened(model, room, "start"))
    return shortened(words, width, "middle")


def _bar(share: float, width: int) -> str:
    if width < _NARROWEST_BAR:
        return ""
    full = int(share * width)
    return "━" * full + "─" * (width - full)


def _elapsed(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
