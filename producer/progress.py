"""Follow a batch: a live bar for people, nothing where nobody looks."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from db.records import Batch
from db.states import BatchState
from producer.display import duration

#: Seconds over which the rate is taken.
_WINDOW = 15.0


class Rates:
    """Jobs and tokens a second over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def add(self, batch: Batch, now: float) -> None:
        self._seen.append((now, batch.done, batch.work_tokens))
        while now - self._seen[0][0] > _WINDOW and len(self._seen) > 2:
            self._seen.popleft()

    @property
    def tokens_per_second(self) -> float:
        return self._rate(2)

    @property
    def jobs_per_second(self) -> float:
        return self._rate(1)

    def _rate(self, place: int) -> float:
        if len(self._seen) < 2:
            return 0.0
        first, last = self._seen[0], self._seen[-1]
        passed = last[0] - first[0]
        return (last[place] - first[place]) / passed if passed > 0 else 0.0


class BatchProgress:
    """A bar on standard error: done, failed, tokens a second, time left."""

    def __init__(self, batch: Batch) -> None:
        self._rates = Rates()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
            expand=True,
        )
        self._task = self._progress.add_task(batch.id, total=batch.total or None, detail="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar away. Idempotent."""
        self._progress.stop()

    def __call__(self, batch: Batch) -> None:
        """Show where the batch stands now."""
        self._rates.add(batch, time.monotonic())
        self._progress.update(
            self._task,
            description=f"{batch.id} {batch.state}",
            completed=batch.done,
            total=batch.total,
            detail=self._detail(batch),
        )

    def _detail(self, batch: Batch) -> str:
        if batch.state == BatchState.QUEUED:
            return "waiting for a worker to be ready"
        parts = [f"{batch.failed} failed"] if batch.failed else []
        parts.append(f"{self._rates.tokens_per_second:,.0f} tok/s")
        rate = self._rates.jobs_per_second
        if rate > 0 and not batch.finished:
            parts.append(f"{duration((batch.total - batch.done) / rate)} left")
        return ", ".join(parts)


@contextmanager
def counting(verb: str, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A counter on standard error for work whose end is not known."""
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )
    with progress:
        task = progress.add_task(verb, total=None)
        yield lambda count: progress.update(task, completed=count)
