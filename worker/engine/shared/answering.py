"""Requests in, outcomes out, each answered exactly once: the half of an engine that knows no model.

A request becomes `n` continuations of one prompt; a back-end ends them one by one; when the
last has ended, the request is answered. Whoever takes a job out of the table answers it, which
is what makes it once. It knows no torch, so that every engine that generates by itself has it.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from threading import Lock

from db.errors import EngineError
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
    Sample,
)
from worker.engine.shared.admission import Admission
from worker.engine.shared.apart import apart
from worker.engine.shared.backend import Backend, MeasuringBackend
from worker.engine.shared.continuation import STRUCTURE_ERROR, Continuation
from worker.engine.shared.prompt import Prompt, Prompter
from worker.engine.telling import tell

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Job:
    """A request that is being worked on."""

    request: Request
    on_done: OnDone
    prompt: Prompt
    continuations: list[Continuation]
    #: Continuations that have not ended.
    left: int

    def answer(self, outcome: Outcome) -> None:
        tell(self.on_done, self.request.id, outcome)


@dataclass(frozen=True, slots=True)
class Started:
    """What `start` makes."""

    prompter: Prompter
    admission: Admission
    backend: Backend
    #: None: the engine only generates.
    measurer: MeasuringBackend | None = None


class AnsweringEngine(ABC):
    """An engine but for the loading: a subclass says what `start` makes."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._lock = Lock()
        self._jobs: dict[str, _Job] = {}
        self._prompt_tokens = 0
        self._closed = False
        self._started: Started | None = None

    @abstractmethod
    def _load(self) -> tuple[Started, EngineInfo]:
        """Load the model and start its back-end, which calls `_on_end`.

        Raises ModelLoadError with the reason.
        """

    def start(self) -> EngineInfo:
        self._started, info = apart(self._load)
        return info

    def submit(self, request: Request, on_done: OnDone) -> None:
        if self._closed:
            on_done(request.id, Cancelled())
            return
        running = self._running
        job = self._job(running, request, on_done)
        refusal = job if isinstance(job, Failed) else self._enter(job)
        if refusal is not None:
            on_done(request.id, refusal)
        elif isinstance(job, _Job):
            running.backend.submit(job.continuations)

    def cancel(self, request_id: str) -> None:
        with self._lock:
            job = self._jobs.pop(request_id, None)
            started = self._started
        if started is not None and started.measurer is not None:
            started.measurer.cancel(request_id)
        if job is not None and started is not None:
            started.backend.cancel(job.continuations)
            job.answer(Cancelled())

    def stats(self) -> EngineStats:
        backend, measurer = self._running.backend, self._running.measurer
        with self._lock:
            in_flight, prompt_tokens = len(self._jobs), self._prompt_tokens
        last_step, made = backend.progress.last_step, backend.progress.completion_tokens
        if measurer is not None:
            in_flight += measurer.in_flight
            prompt_tokens += measurer.prompt_tokens
            made += measurer.progress.completion_tokens
            # One model: while the one back-end has it, the other can only wait.
            last_step = max(last_step, measurer.progress.last_step)
        stalled_for = time.monotonic() - last_step
        return EngineStats(
            in_flight=in_flight,
            capacity=backend.capacity,
            prompt_tokens=prompt_tokens,
            completion_tokens=made,
            stalled_for=stalled_for if in_flight else 0.0,
            broken=backend.broken,
        )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            jobs = list(self._jobs.values())
            self._jobs.clear()
            started, self._started = self._started, None
        for job in jobs:
            job.answer(Cancelled())
        if started is not None:
            if started.measurer is not None:
                started.measurer.close()
            started.backend.cancel(one for job in jobs for one in job.continuations)
            started.backend.close()

    @property
    def _running(self) -> Started:
        started = self._started
        if started is None:
            raise EngineError("the engine is not running: it is used before start or after close")
        return started

    def _job(self, running: Started, request: Request, on_done: OnDone) -> _Job | Failed:
        """The request as a job, or why the model can't take it."""
        prompt = running.prompter.prompt(request)
        if isinstance(prompt, Failed):
            return prompt
        longest = running.backend.longest
        continuations = running.admission.continuations(request, prompt, longest)
        if isinstance(continuations, Failed):
            return continuations
        return _Job(request, on_done, prompt, continuations, left=len(continuations))

    def _enter(self, job: _Job) -> Cancelled | Failed | None:
        """Put the job in the table, unless the engine is closed or knows its id."""
        with self._lock:
            if self._closed:
                return Cancelled()
            if job.request.id in self._jobs:
                message = f"the engine already works on a request with the id '{job.request.id}'"
                return Failed("duplicate_id", message)
            if not self._jobs and self._started is not None:
                self._started.backend.progress.step(0)  # it stood idle, not still
            self._jobs[job.request.id] = job
            self._prompt_tokens += len(job.prompt.token_ids)
        return None

    def _on_end(self, continuation: Continuation, failure: Failed | None) -> None:
        failure = failure or _failure(continuation)
        with self._lock:
            job, started = self._jobs.get(continuation.request_id), self._started
            # A late end of a request that was cancelled and came again under the same id.
            if job is None or started is None or continuation not in job.continuations:
                return
            job.left -= 1
            if job.left and failure is None:
                return
            del self._jobs[job.request.id]
        if failure is not None:
            started.backend.cancel(job.continuations)
            job.answer(failure)
        else:
            job.answer(self._completed(job))

    def _completed(self, job: _Job) -> Completed:
        started = [one.started_at for one in job.continuations if one.started_at is not None]
        return Completed(
            samples=tuple(self._sample(job, one) for one in job.continuations),
            prompt_tokens=len(job.prompt.token_ids),
            started_at=min(started, default=time.time()),
        )

    def _sample(self, job: _Job, continuation: Continuation) -> Sample:
        reason = continuation.finish_reason or "length"
        said = self._running.prompter.message(
            job.request, job.prompt, continuation.token_ids, reason, continuation.index
        )
        return Sample(
            index=continuation.index,
            text=said.text,
            finish_reason=said.finish_reason,
            completion_tokens=len(continuation.token_ids),
            logprobs=self._running.prompter.logprobs(continuation.scores, job.prompt.token_ids)
            if job.request.params.wants_logprobs
            else None,
            reasoning=said.reasoning,
            tool_calls=said.tool_calls,
        )


def _failure(continuation: Continuation) -> Failed | None:
    """What stopped a continuation that the back-end took for done."""
    if continuation.error is None:
        return None
    if continuation.error == STRUCTURE_ERROR and continuation.guide is not None:
        return Failed(
            continuation.error, f"the structure can't be followed: {continuation.guide.error}"
        )
    return Failed(
        continuation.error,
        "the model's logits are not finite (NaN or infinite): load it in float32 or bfloat16",
    )
