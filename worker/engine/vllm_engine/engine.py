"""The engine itself: requests in, outcomes out, each answered exactly once.

Whoever takes a job out of the table answers it, which is what makes it once. A request's samples
are requests of their own to vLLM, each with its own seed; the prompt is read once all the same,
as vLLM shares the beginnings of prompts.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from threading import Lock
from typing import Any

from db.errors import EngineError
from worker.engine.adapters import unknown_adapter
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
from worker.engine.room import room, strange_stop
from worker.engine.shared.prompt import Prompt
from worker.engine.telling import tell
from worker.engine.vllm_engine import loading, sampling
from worker.engine.vllm_engine.generating import generate_sample
from worker.engine.vllm_engine.runner import Runner
from worker.engine.vllm_engine.settings import Options

#: The ends of a sample that are none of vLLM's troubles.
_ENDS = ("stop", "length")

_log = logging.getLogger(__name__)
_serial = itertools.count()


@dataclass(slots=True, eq=False)
class _Job:
    """A request that is being worked on."""

    request: Request
    on_done: OnDone
    prompt: Prompt
    #: New tokens of each sample, at most.
    limit: int
    #: The grammar of the calls that it has to make; None: it need not.
    calls: str | None = None
    #: Set and read on the loop only.
    task: asyncio.Task[None] | None = None

    def answer(self, outcome: Outcome) -> None:
        tell(self.on_done, self.request.id, outcome)


@dataclass(frozen=True, slots=True)
class _Started:
    """What `start` made."""

    plan: loading.Plan
    runner: Runner
    loaded: loading.Loaded


class VllmEngine:
    """One model in vLLM's processes, on one device or, by tensor parallelism, on several."""

    def __init__(self, config: EngineConfig) -> None:
        """Reads the settings only. Raises SettingsError for an unknown or bad option."""
        self._config = config
        self._options = Options.read(config.options)
        if find_spec("vllm") is None:
            raise ModuleNotFoundError("No module named 'vllm'", name="vllm")
        self._lock = Lock()
        self._jobs: dict[str, _Job] = {}
        self._prompt_tokens = 0
        self._closed = False
        self._started: _Started | None = None

    def start(self) -> EngineInfo:
        plan = loading.plan(self._config, self._options)
        runner = Runner(plan)
        loaded = runner.start()
        self._started = _Started(plan, runner, loaded)
        return loaded.info

    def submit(self, request: Request, on_done: OnDone) -> None:
        if self._closed:
            on_done(request.id, Cancelled())
            return
        started = self._running
        job = _job(started, request, on_done)
        refusal = job if isinstance(job, Failed) else self._enter(started, job)
        if refusal is not None:
            on_done(request.id, refusal)

    def cancel(self, request_id: str) -> None:
        with self._lock:
            job = self._jobs.pop(request_id, None)
            started = self._started
        if job is not None and started is not None:
            started.runner.call(_stop, job)
            job.answer(Cancelled())

    def stats(self) -> EngineStats:
        started = self._running
        with self._lock:
            in_flight, prompt_tokens = len(self._jobs), self._prompt_tokens
        stalled_for = time.monotonic() - started.runner.last_step
        return EngineStats(
            in_flight=in_flight,
            capacity=started.loaded.info.capacity,
            prompt_tokens=prompt_tokens,
            completion_tokens=started.runner.generated,
            stalled_for=stalled_for if in_flight else 0.0,
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
            started.runner.close()

    @property
    def _running(self) -> _Started:
        started = self._started
        if started is None:
            raise EngineError("the engine is not running: it is used before start or after close")
        return started

    def _enter(self, started: _Started, job: _Job) -> Cancelled | Failed | None:
        """Put the job in the table and have it begun, unless the engine is closed or knows its
        id."""
        with self._lock:
            if self._closed:
                return Cancelled()
            if job.request.id in self._jobs:
                message = f"the engine already works on a request with the id '{job.request.id}'"
                return Failed("duplicate_id", message)
            if not self._jobs:
                started.runner.step()  # it stood idle, not still
            self._jobs[job.request.id] = job
            self._prompt_tokens += len(job.prompt.token_ids)
            # Under the lock, so that a close comes after it.
            started.runner.call(self._begin, started, job)
        return None

    def _begin(self, started: _Started, job: _Job) -> None:
        if self._is_open(job):
            job.task = started.runner.task(self._work(started, job))

    async def _work(self, started: _Started, job: _Job) -> None:
        outcome: Outcome
        try:
            outcome = await _generate(started, job)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request is answered
            outcome = _failed(error)
        if self._take(job):
            job.answer(outcome)

    def _is_open(self, job: _Job) -> bool:
        with self._lock:
            return self._jobs.get(job.request.id) is job

    def _take(self, job: _Job) -> bool:
        """Whether the job is ours to answer; it is out of the table then."""
        with self._lock:
            if self._jobs.get(job.request.id) is not job:
                return False
            del self._jobs[job.request.id]
        return True


def _job(started: _Started, request: Request, on_done: OnDone) -> _Job | Failed:
    """The request as a job, or why the model can't take it."""
    params, plan = request.params, started.plan
    refusal = (
        unknown_adapter(params.adapter, started.loaded.info.adapters)
        or sampling.too_hot(params)
        or strange_stop(params, plan.vocabulary)
    )
    if refusal is not None:
        return refusal
    prompt = plan.prompter.prompt(request)
    if isinstance(prompt, Failed):
        return prompt
    limit = room(
        len(prompt.token_ids),
        params,
        context_length=plan.context_length,
        longest=started.loaded.longest,
    )
    if isinstance(limit, Failed):
        return limit
    calls = plan.prompter.reader.calls_grammar(request)
    if isinstance(calls, Failed):
        return calls
    return _Job(request, on_done, prompt, limit, calls)


def _stop(job: _Job) -> None:
    if job.task is not None:
        job.task.cancel()


async def _generate(started: _Started, job: _Job) -> Completed | Failed:
    """All samples of a request. Raises what vLLM raises for any of them, alone or in a group."""
    request, name = job.request, f"{job.request.id}@{next(_serial)}"
    prompter = started.plan.prompter
    async with started.runner.vllm() as generate, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                generate_sample(
                    generate,
                    job.prompt.token_ids,
                    sampling.arguments(
                        request, job.limit, index, job.calls, started.plan.turn_ends
                    ),
                    f"{name}#{index}",
                    request.params.adapter,
                    prompter.phases(request, job.prompt),
                    started.plan.turn_ends,
                )
            )
            for index in range(request.params.n)
        ]
    samples = [task.result() for task in tasks]
    outputs = [output for made in samples for output in made.outputs]
    if any(_corrupted(output) for output in outputs):
        return Failed(
            "not_finite",
            "the model's logits are not finite (NaN or infinite): load it in float32 or bfloat16",
        )
    strange = [made.finish_reason for made in samples if made.finish_reason not in _ENDS]
    if strange:
        raise EngineError(f"vLLM ended a sample with '{strange[0]}'")
    return Completed(
        samples=tuple(
            sampling.sample(request, index, made, job.prompt, prompter)
            for index, made in enumerate(samples)
        ),
        prompt_tokens=len(job.prompt.token_ids),
        started_at=_started_at(outputs),
    )


def _corrupted(output: Any) -> bool:
    """Whether vLLM saw logits that are no numbers."""
    return bool(getattr(output.metrics, "is_corrupted", False))


def _started_at(outputs: Iterable[Any]) -> float:
    """Unix seconds at which the model first worked on any of them; vLLM's clock is monotonic."""
    clock = time.time() - time.monotonic()
    scheduled = [
        output.metrics.scheduled_ts + clock
        for output in outputs
        if output.metrics is not None and output.metrics.scheduled_ts
    ]
    return min(scheduled, default=time.time())


def _failed(error: Exception) -> Failed:
    """What a request is answered with for what vLLM raised."""
    from vllm.exceptions import VLLMClientError

    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, VLLMClientError):
        return Failed("unsupported_parameter", f"vLLM refuses the request: {reason}")
    return Failed("engine_error", f"the engine broke while generating: {reason}", retriable=True)
