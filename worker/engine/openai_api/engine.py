"""The engine itself: one thread, one loop, many requests on the wire, each answered once.

Whoever takes a job out of the table answers it, which is what makes it once. The line of the
schedule and everything on the wire belong to the loop; the table of jobs, under a lock, is what
other threads touch.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from threading import Lock, Thread, current_thread
from typing import Any, TypeVar

import openai

from worker.engine.openai_api.calls import Call, call_for, refused
from worker.engine.openai_api.concurrency import Window
from worker.engine.openai_api.endpoint import Endpoint
from worker.engine.openai_api.replies import Reply, samples
from worker.engine.openai_api.schedule import Schedule, Ticket
from worker.engine.openai_api.settings import read, read_key
from worker.engine.openai_api.troubles import Trouble
from worker.engine.protocol import (
    Cancelled,
    Completed,
    EngineConfig,
    EngineInfo,
    EngineStats,
    Failed,
    OnDone,
    Outcome,
    Request,
)
from worker.engine.telling import tell

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Job:
    """A request that is being worked on."""

    request: Request
    on_done: OnDone
    replies: list[Reply] = field(default_factory=list)
    #: Unix seconds at which the first try that got a reply was sent.
    started_at: float | None = None
    #: Of the loop: its place in the line, and its try on the wire.
    ticket: Ticket[_Job] | None = None
    task: asyncio.Task[None] | None = None

    @property
    def got(self) -> int:
        """Samples that have come."""
        return sum(len(reply.choices) for reply in self.replies)

    def answer(self, outcome: Outcome) -> None:
        tell(self.on_done, self.request.id, outcome)


class OpenAIEngine:
    """One model behind one OpenAI-compatible endpoint."""

    def __init__(self, config: EngineConfig) -> None:
        """Reads the settings only. Raises SettingsError for an unknown or bad option."""
        self._model = config.model
        self._settings = read(config)
        self._lock = Lock()
        self._jobs: dict[str, _Job] = {}
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._closed = False
        #: time.monotonic() until which nothing is amiss: the last sign of life, or the end of
        #: a pause that is meant.
        self._calm_until = 0.0
        self._schedule: Schedule[_Job] = Schedule(
            Window.new(self._settings.capacity),
            rpm=self._settings.rpm,
            tpm=self._settings.tpm,
            max_retries=self._settings.max_retries,
            jitter=lambda: random.uniform(0.5, 1.0),  # noqa: S311 - no secret
        )
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._dispatcher: asyncio.Task[None] | None = None
        self._endpoint: Endpoint | None = None
        self._thread = Thread(target=self._run, name="promptmill-openai", daemon=True)

    def start(self) -> EngineInfo:
        key = read_key(self._settings)
        self._thread.start()

        async def begin() -> None:
            self._endpoint = endpoint = Endpoint(self._settings, key)
            await endpoint.check(self._model)
            self._dispatcher = self._loop.create_task(self._dispatch(endpoint))

        try:
            self._in_loop(begin())
        except BaseException:
            self.close()
            raise
        return EngineInfo(
            engine="openai",
            engine_version=openai.__version__,
            model=self._model,
            revision=None,
            device=self._settings.host,
            dtype="remote",
            parameters=0,
            capacity=self._settings.capacity,
        )

    def submit(self, request: Request, on_done: OnDone) -> None:
        refusal = Cancelled() if self._closed else self._enter(request, on_done)
        if refusal is not None:
            on_done(request.id, refusal)

    def cancel(self, request_id: str) -> None:
        with self._lock:
            job = self._jobs.pop(request_id, None)
            if job is not None and not self._closed:
                self._loop.call_soon_threadsafe(self._drop, job)
        if job is not None:
            job.answer(Cancelled())

    def stats(self) -> EngineStats:
        with self._lock:
            in_flight = len(self._jobs)
            return EngineStats(
                in_flight=in_flight,
                capacity=self._schedule.window.size,
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens,
                stalled_for=max(0.0, time.monotonic() - self._calm_until) if in_flight else 0.0,
            )

    def close(self) -> None:
        with self._lock:
            again, self._closed = self._closed, True
            jobs = list(self._jobs.values())
            self._jobs.clear()
        for job in jobs:
            job.answer(Cancelled())
        if again:
            return
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            if self._thread is not current_thread():
                self._thread.join()
        elif not self._loop.is_closed():
            self._loop.close()

    def _enter(self, request: Request, on_done: OnDone) -> Cancelled | Failed | None:
        """Take the request, unless it is refused."""
        failure = refused(request, self._settings.api, self._settings.dialect)
        if failure is not None:
            return failure
        job = _Job(request, on_done)
        with self._lock:
            if self._closed:
                return Cancelled()
            if request.id in self._jobs:
                message = f"the engine already works on a request with the id '{request.id}'"
                return Failed("duplicate_id", message)
            if not self._jobs:
                self._sign_of_life()  # it stood idle, not still
            self._jobs[request.id] = job
            self._loop.call_soon_threadsafe(self._queue, job)
        return None

    # --- in the loop ------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._wind_up())
        finally:
            self._loop.close()

    async def _wind_up(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if self._endpoint is not None:
            await self._endpoint.close()

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _queue(self, job: _Job) -> None:
        """A place in the line, for all samples that are still to come."""
        place = job.ticket.serial if job.ticket is not None else -1
        try:
            job.ticket = Ticket(job, self._call(job).tokens, place)
        except Exception as error:  # noqa: BLE001 - a request must be answered, whatever it is
            self._finish(job, _surprise(error))
            return
        self._schedule.add(job.ticket)
        self._changed.set()

    def _drop(self, job: _Job) -> None:
        if job.ticket is not None:
            job.ticket.dropped = True
        if job.task is not None:
            job.task.cancel()
        self._changed.set()

    async def _dispatch(self, endpoint: Endpoint) -> None:
        """Send whatever may be sent; else wait until it may, or something changes."""
        while True:
            self._changed.clear()
            now = time.monotonic()
            while (ticket := self._schedule.next(now)) is not None:
                self._send(endpoint, ticket)
            wait = self._schedule.wake_in(now)
            if self._schedule.on_wire == 0:
                self._sign_of_life(wait or 0.0)
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _send(self, endpoint: Endpoint, ticket: Ticket[_Job]) -> None:
        job = ticket.item
        if self._schedule.on_wire == 1:
            self._sign_of_life()
        job.task = self._loop.create_task(self._try(endpoint, job, ticket))
        job.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Here and not in the task: one that is cancelled at once never begins."""
        if task.cancelled():
            self._schedule.abandoned()
        self._sign_of_life()
        self._changed.set()

    async def _try(self, endpoint: Endpoint, job: _Job, ticket: Ticket[_Job]) -> None:
        """One call, and what follows from its end."""
        sent_at = time.time()
        got: Reply | Trouble
        try:
            got = await endpoint.ask(self._call(job), job.request.params.alternatives)
        except Exception as error:  # noqa: BLE001 - as above
            got = Trouble(_surprise(error))
        try:
            self._after(job, ticket, got, sent_at)
        except Exception as error:  # noqa: BLE001 - as above
            self._finish(job, _surprise(error))

    def _after(self, job: _Job, ticket: Ticket[_Job], got: Reply | Trouble, sent_at: float) -> None:
        now = time.monotonic()
        before = self._schedule.window.size
        if isinstance(got, Trouble):
            if not self._schedule.failed(ticket, got, now):
                self._finish(job, got.failure)
            self._report(got, before)
            return
        self._schedule.succeeded(ticket, got.prompt_tokens + got.completion_tokens, now)
        job.replies.append(got)
        job.started_at = sent_at if job.started_at is None else job.started_at
        if job.got < job.request.params.n:
            self._queue(job)
            return
        made = samples(job.request, job.replies)
        if isinstance(made, Failed):
            self._finish(job, made)
        else:
            prompt_tokens = job.replies[0].prompt_tokens
            self._finish(job, Completed(made, prompt_tokens, job.started_at))

    def _report(self, trouble: Trouble, before: int) -> None:
        after = self._schedule.window.size
        if after < before:
            _log.info(
                "%s: %d requests at once instead of %d", trouble.failure.message, after, before,
                extra={"action": "engine_shrink"},
            )  # fmt: skip

    def _finish(self, job: _Job, outcome: Outcome) -> None:
        with self._lock:
            # A late end of a request that was cancelled and came again under the same id.
            if self._jobs.get(job.request.id) is not job:
                return
            del self._jobs[job.request.id]
            if isinstance(outcome, Completed):
                self._prompt_tokens += outcome.prompt_tokens
                self._completion_tokens += sum(one.completion_tokens for one in outcome.samples)
        job.answer(outcome)

    def _call(self, job: _Job) -> Call:
        settings = self._settings
        return call_for(job.request, self._model, settings.api, settings.dialect, job.got)

    def _sign_of_life(self, ahead: float = 0.0) -> None:
        """All is well now, and for `ahead` seconds to come."""
        self._calm_until = max(self._calm_until, time.monotonic() + ahead)


def _surprise(error: Exception) -> Failed:
    """Called where the error was caught: it is logged with its traceback."""
    _log.exception("a call broke", extra={"action": "surprise"})
    return Failed("engine_error", f"{type(error).__name__} in engine 'openai'", retriable=True)
