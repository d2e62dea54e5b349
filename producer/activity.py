"""What a batch is doing, in words: pure decisions on what is stored and what we know ourselves."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from db.records import Batch, Pace, Worker
from db.states import BatchState
from db.wording import count_of
from producer.display import duration, rate
from producer.servable import ECHO
from producer.time_left import stored_time_left

#: What runs a model where nothing else is said.
_DEFAULT_ENGINE = "transformers"


def activity(batch: Batch, pace: Pace | None, *, own: str | None = None) -> str | None:
    """Why nothing is generated, or about to; None: jobs run.

    `own`: what our own worker does instead of generating, such as loading the model.
    """
    if batch.finished:
        return None
    if batch.state == BatchState.VALIDATING:
        return "its prompts are being stored"
    if batch.state == BatchState.PAUSED:
        return f"paused: 'promptmill resume {batch.id}' continues it"
    if batch.state == BatchState.CANCELLING:
        return "being cancelled"
    if pace is None or pace.working:
        return None
    if own is not None:
        return own
    if pace.serving == 0:
        return f"waiting for a worker: {worker_command(batch.model)}"
    if batch.state == BatchState.QUEUED:
        return f"waiting for {count_of(pace.serving, 'busy worker')}"
    return None


def worker_command(model: str, engine: str = _DEFAULT_ENGINE) -> str:
    """What starts a worker for the model, fit for a shell.

    A model called `echo` is the engine's of that name, whatever `engine` says.
    """
    if model == ECHO:
        engine = ECHO
    chosen = "" if engine == _DEFAULT_ENGINE else f" --engine {engine}"
    return f"promptmill worker --model {shlex.quote(model)}{chosen}"


def missing_worker(
    batch: Batch, workers: Iterable[Worker], engine: str = _DEFAULT_ENGINE
) -> tuple[str, str] | None:
    """What to say of an unfinished batch whose model no worker serves: a text and a command.

    None: a worker serves it, or nothing is left to do.
    """
    if batch.finished or any(
        worker.queue == batch.queue and worker.stops_at is None for worker in workers
    ):
        return None
    return "no worker serves it yet; start one", worker_command(batch.model, engine)


def speed(batch: Batch, pace: Pace | None, left: float | None) -> list[str]:
    """`2 failed`, `199 tok/s`, `about 2 min left`: what is known, in this order.

    Where every worker of it is shutting down, that stands for the time left.
    """
    parts = [f"{batch.failed:,} failed"] if batch.failed else []
    tokens = rate(pace.tokens_per_second) if pace is not None else None
    if tokens is not None:
        parts.append(f"{tokens} tok/s")
    rest = batch.total - batch.done
    if pace is not None and pace.stops_at is not None:
        parts.append(_stopping(pace.working, pace.stops_at - pace.now))
    elif left is not None:
        parts.append(f"about {rounded(left)} left")
    elif pace is not None and 0 < rest <= pace.running:
        parts.append(f"the last {rest:,} running" if rest > 1 else "the last one running")
    return parts


def _stopping(workers: int, seconds: float) -> str:
    whose = "its worker" if workers == 1 else f"all its {workers:,} workers"
    if seconds < 1:
        return f"{whose} {'is' if workers == 1 else 'are'} stopping"
    return f"{whose} {'stops' if workers == 1 else 'stop'} within {seconds:.0f} s"


def rounded(seconds: float) -> str:
    """A duration that claims no more than an estimate knows: `40 s`, `3 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds / 5) * 5 if seconds > 10 else round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return duration(round(seconds / 600) * 600).removesuffix(" 0 min")


def stored_left(batch: Batch, pace: Pace) -> float | None:
    """Seconds until it is finished, by stored facts alone; None where they don't tell."""
    if batch.started_at is None or not pace.working or pace.stops_at is not None:
        return None
    tokens = batch.completion_tokens / batch.done if batch.done else 0.0
    return stored_time_left(
        seconds=pace.now - batch.started_at,
        done=batch.done,
        total=batch.total,
        running=pace.running,
        recent_rate=pace.tokens_per_second / tokens if tokens else None,
    )


def standing(batch: Batch) -> str:
    """`120 of 300 done (40 %), 3 failed`."""
    share = f" ({percent(batch)} %)" if batch.total else ""
    failed = f", {batch.failed:,} failed" if batch.failed else ""
    return f"{batch.done:,} of {batch.total:,} done{share}{failed}"


def percent(batch: Batch) -> int:
    """Of its jobs, done; 100 only when all are."""
    return batch.done * 100 // batch.total if batch.total else 100
