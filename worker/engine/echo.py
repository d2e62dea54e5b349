"""A model-free engine: it answers with the prompt's own words. For tests and queue benchmarks.

What it says is in `echo_words`; here is when.

Options:

    latency    seconds that a request takes (0: it is answered inside `submit`)
    capacity   requests that run at once, the others wait (only with a latency)
    faults     `on`: a marker in a prompt breaks that request, see FAULTS
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Condition, Thread
from typing import TypeVar

from worker.engine.adapters import unknown_adapter
from worker.engine.echo_words import answer, measured
from worker.engine.options import OptionReader
from worker.engine.parameters import refusal
from worker.engine.protocol import (
    Cancelled,
    Completed,
    EmbedRequest,
    EngineConfig,
    EngineInfo,
    EngineStats,
    Failed,
    Measured,
    Measurement,
    OnDone,
    Outcome,
    Request,
    Scored,
    ScoreRequest,
)

#: Marker in a prompt -> what becomes of the request, with the option faults=on.
FAULTS = {
    "[[fail]]": "it fails for good",
    "[[retry]]": "it fails, and says that another time may pass",
    "[[hang]]": "it never ends, but by cancel or close",
    "[[exit]]": "the process dies at once, as of a crash",
}

_OPTIONS = ("capacity", "faults", "latency")

#: What a request that broke the process on purpose leaves as exit status (EX_SOFTWARE).
_EXIT_STATUS = 70


R = TypeVar("R", Request, ScoreRequest | EmbedRequest)


@dataclass(slots=True, eq=False)
class _Job:
    request: Request | Measurement
    on_done: OnDone
    outcome: Outcome
    started_at: float = 0.0
    #: Already answered otherwise.
    dropped: bool = False


class EchoEngine:
    """Deterministic, with settable latency, capacity and faults."""

    def __init__(self, config: EngineConfig) -> None:
        """Raises SettingsError for an unknown or bad option."""
        options = OptionReader("echo", config.options, _OPTIONS)
        self._model = config.model
        self._latency = options.number("latency", default=0.0, at_least=0.0)
        default = config.max_concurrency or 64
        self._capacity = int(options.finite("capacity", default=default, at_least=1))
        #: Any folder will do: it is not looked at.
        self._adapters = {
            name: hashlib.sha256(place.encode()).hexdigest()
            for name, place in config.adapters.items()
        }
        self._faults = options.choice("faults", ("on", "off"), "off") == "on"
        options.finish()
        self._changed = Condition()
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[_Job] = deque()
        #: (time.monotonic() of its end, tie-breaker, job)
        self._running: list[tuple[float, int, _Job]] = []
        self._serial = itertools.count()
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._last_step = time.monotonic()
        self._closed = False
        self._thread = Thread(target=self._run, name="promptmill-echo", daemon=True)

    def start(self) -> EngineInfo:
        self._thread.start()
        return EngineInfo(
            engine="echo",
            engine_version="1",
            model=self._model,
            revision=None,
            device="cpu",
            dtype="text",
            parameters=0,
            capacity=self._capacity,
            adapters=self._adapters,
        )

    def submit(self, request: Request, on_done: OnDone) -> None:
        self._take(request, on_done, _answered)

    def measure(self, request: Measurement, on_done: OnDone) -> None:
        self._take(request, on_done, measured)

    def _take(self, request: R, on_done: OnDone, answered: Callable[[R], Outcome]) -> None:
        hangs = False
        outcome: Outcome
        if self._faults and (fault := _fault(request)):
            hangs = fault == "[[hang]]"
            outcome = _broken(fault)
        else:
            unknown = unknown_adapter(request.params.adapter, self._adapters)
            outcome = unknown or answered(request)
        if self._latency == 0 and not hangs and not self._closed:
            self._count(outcome)
            on_done(request.id, outcome)
            return
        unwelcome = self._enter(_Job(request, on_done, outcome), hangs)
        if unwelcome is not None:
            on_done(request.id, unwelcome)

    def cancel(self, request_id: str) -> None:
        with self._changed:
            job = self._jobs.pop(request_id, None)
            if job is None:
                return
            job.dropped = True
            # Its slot is free now, not at the end of its latency.
            self._running = [one for one in self._running if not one[2].dropped]
            heapq.heapify(self._running)
            self._changed.notify()
        job.on_done(request_id, Cancelled())

    def stats(self) -> EngineStats:
        with self._changed:
            in_flight = len(self._jobs)
            return EngineStats(
                in_flight=in_flight,
                capacity=self._capacity,
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens,
                stalled_for=time.monotonic() - self._last_step if in_flight else 0.0,
            )

    def close(self) -> None:
        with self._changed:
            self._closed = True
            jobs = list(self._jobs.values())
            self._jobs.clear()
            self._changed.notify()
        for job in jobs:
            job.on_done(job.request.id, Cancelled())
        if self._thread.is_alive():
            self._thread.join()

    def _enter(self, job: _Job, hangs: bool) -> Cancelled | Failed | None:
        """Put the job in the queue, unless the engine is closed or knows its id."""
        with self._changed:
            if self._closed:
                return Cancelled()
            if job.request.id in self._jobs:
                message = f"the engine already works on a request with the id '{job.request.id}'"
                return Failed("duplicate_id", message)
            if not self._jobs:
                self._last_step = time.monotonic()
            self._jobs[job.request.id] = job
            if hangs:
                heapq.heappush(self._running, (float("inf"), next(self._serial), job))
            else:
                self._waiting.append(job)
                self._changed.notify()
        return None

    def _run(self) -> None:
        while True:
            with self._changed:
                ended = self._ended()
                while not ended and not self._closed:
                    self._changed.wait(self._until_next())
                    ended = self._ended()
                if self._closed:
                    return
            for job in ended:
                self._count(job.outcome)
                job.on_done(job.request.id, _begun(job.outcome, job.started_at))

    def _ended(self) -> list[_Job]:
        """Take what is over, and give the free slots to those that wait longest."""
        now = time.monotonic()
        ended: list[_Job] = []
        while self._running and self._running[0][0] <= now:
            job = heapq.heappop(self._running)[2]
            del self._jobs[job.request.id]
            ended.append(job)
        while self._waiting and len(self._running) < self._capacity:
            job = self._waiting.popleft()
            if not job.dropped:
                job.started_at = time.time()
                heapq.heappush(self._running, (now + self._latency, next(self._serial), job))
        return ended

    def _until_next(self) -> float | None:
        """Seconds until the next end; None: none is in sight."""
        if not self._running or self._running[0][0] == float("inf"):
            return None
        return max(0.0, self._running[0][0] - time.monotonic())

    def _count(self, outcome: Outcome) -> None:
        if isinstance(outcome, Failed | Cancelled):
            return
        made = 0
        if isinstance(outcome, Completed):
            made = sum(one.completion_tokens for one in outcome.samples)
        elif isinstance(outcome, Scored):
            made = outcome.tokens
        with self._changed:
            self._prompt_tokens += outcome.prompt_tokens
            self._completion_tokens += made
            self._last_step = time.monotonic()


def _answered(request: Request) -> Completed | Failed:
    return refusal("echo", request.params) or answer(request)


def _fault(request: Request | Measurement) -> str | None:
    chat = None if isinstance(request, EmbedRequest) else request.messages
    text = request.prompt if chat is None else str(chat)
    return next((marker for marker in FAULTS if marker in (text or "")), None)


def _broken(fault: str) -> Failed:
    if fault == "[[exit]]":
        os._exit(_EXIT_STATUS)
    return Failed(
        "echo_fault", f"the prompt asked for the fault {fault}", retriable=fault == "[[retry]]"
    )


def _begun(outcome: Outcome, started_at: float) -> Outcome:
    if isinstance(outcome, Failed | Cancelled | Measured):
        return outcome
    return replace(outcome, started_at=started_at)
