"""The engine itself: requests in, outcomes out, each answered exactly once.

A request becomes `n` continuations of one prompt; a back-end ends them one by one; when the
last has ended, the request is answered. Whoever takes a job out of the table answers it, which
is what makes it once.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from threading import Lock

import transformers

from db.errors import EngineError, ModelLoadError
from worker.engine.options import check_names, choice
from worker.engine.protocol import (
    Cancelled,
    Completed,
    EngineConfig,
    EngineInfo,
    EngineStats,
    Failed,
    Measurement,
    OnDone,
    Outcome,
    Request,
    Sample,
)
from worker.engine.stopping import cut_at_stop
from worker.engine.transformers.admission import Admission
from worker.engine.transformers.apart import apart
from worker.engine.transformers.backend import Backend, traits, why_not_continuous
from worker.engine.transformers.continuation import Continuation
from worker.engine.transformers.continuous import ContinuousBackend, PagingUnsupported
from worker.engine.transformers.loading import LoadedModel, load
from worker.engine.transformers.measurer import Measurer
from worker.engine.transformers.prompt import Prompt, Prompter
from worker.engine.transformers.static import StaticBackend

#: Engine options and the words that they take.
OPTIONS = {
    "batching": ("auto", "continuous", "static"),
    #: Of continuous batching: our own, or transformers' own.
    "attention": ("packed", "sdpa"),
}

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
        """Never raises: a caller's error must not stop the thread that answers the others."""
        try:
            self.on_done(self.request.id, outcome)
        except Exception:  # noqa: BLE001 - whatever it is, it is not ours to die of
            _log.exception("a caller failed on its answer", extra={"action": "answer_failed"})


@dataclass(frozen=True, slots=True)
class _Started:
    """What `start` made."""

    prompter: Prompter
    admission: Admission
    backend: Backend
    measurer: Measurer


class TransformersEngine:
    """One Hugging Face model on one device."""

    def __init__(self, config: EngineConfig) -> None:
        """Reads the settings only. Raises SettingsError for an unknown option."""
        check_names("transformers", config.options, OPTIONS)
        self._batching = choice(config.options, "batching", OPTIONS["batching"], "auto")
        self._attention = choice(config.options, "attention", OPTIONS["attention"], "packed")
        self._config = config
        self._lock = Lock()
        self._jobs: dict[str, _Job] = {}
        self._prompt_tokens = 0
        self._closed = False
        self._started: _Started | None = None

    def start(self) -> EngineInfo:
        return apart(self._start)

    def _start(self) -> EngineInfo:
        loaded = load(self._config)
        prompter = Prompter(loaded.tokenizer)
        measurer = Measurer(loaded, self._config, prompter)
        backend = self._backend(loaded, prompter)
        admission = Admission(
            prompter=prompter,
            end_ids=loaded.end_ids,
            vocabulary=loaded.model.get_output_embeddings().weight.shape[0],
            context_length=loaded.context_length,
            decoder_start_id=loaded.decoder_start_id if loaded.encoder_decoder else None,
        )
        measurer.start()
        self._started = _Started(prompter, admission, backend, measurer)
        bounds = [one for one in (loaded.context_length, backend.longest) if one is not None]
        return EngineInfo(
            engine="transformers",
            engine_version=transformers.__version__,
            model=self._config.model,
            revision=loaded.revision,
            device=str(loaded.device),
            dtype=loaded.dtype,
            parameters=loaded.model.num_parameters(),
            capacity=backend.capacity,
            kv_tokens=backend.kv_tokens,
            context_length=min(bounds, default=None),
        )

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

    def measure(self, request: Measurement, on_done: OnDone) -> None:
        if self._closed:
            on_done(request.id, Cancelled())
        else:
            self._running.measurer.measure(request, on_done)

    def cancel(self, request_id: str) -> None:
        with self._lock:
            job = self._jobs.pop(request_id, None)
            started = self._started
        if started is not None:
            started.measurer.cancel(request_id)
        if job is not None and started is not None:
            started.backend.cancel(job.continuations)
            job.answer(Cancelled())

    def stats(self) -> EngineStats:
        backend, measurer = self._running.backend, self._running.measurer
        with self._lock:
            in_flight, prompt_tokens = len(self._jobs), self._prompt_tokens
        in_flight += measurer.in_flight
        # One model: while the one back-end has it, the other can only wait.
        last_step = max(backend.progress.last_step, measurer.progress.last_step)
        stalled_for = time.monotonic() - last_step
        made = backend.progress.completion_tokens + measurer.progress.completion_tokens
        return EngineStats(
            in_flight=in_flight,
            capacity=backend.capacity,
            prompt_tokens=prompt_tokens + measurer.prompt_tokens,
            completion_tokens=made,
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
            started.measurer.close()
            started.backend.cancel(one for job in jobs for one in job.continuations)
            started.backend.close()

    @property
    def _running(self) -> _Started:
        started = self._started
        if started is None:
            raise EngineError("the engine is not running: it is used before start or after close")
        return started

    def _backend(self, loaded: LoadedModel, prompter: Prompter) -> Backend:
        """The back-end that the model gets, started."""
        reason = why_not_continuous(traits(loaded.model))
        if reason and self._batching == "continuous":
            raise ModelLoadError(
                f"model '{self._config.model}' can't be batched continuously, as {reason}: "
                "leave the engine option 'batching' at auto"
            )
        if not reason and self._batching != "static":
            continuous = ContinuousBackend(
                loaded, self._config, prompter.token_text, own_attention=self._attention == "packed"
            )
            try:
                continuous.start(self._on_end)
            except PagingUnsupported as error:
                if self._batching == "continuous":
                    raise
                _log.warning("%s (done)", error.message, extra={"action": "engine_static"})
            else:
                return continuous
        static = StaticBackend(loaded, self._config, prompter.token_text)
        static.start(self._on_end)
        return static

    def _job(self, running: _Started, request: Request, on_done: OnDone) -> _Job | Failed:
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
        params = job.request.params
        text = cut_at_stop(continuation.decode(continuation.token_ids), params.stop)
        return Sample(
            index=continuation.index,
            text=job.prompt.text + text if params.echo else text,
            finish_reason=continuation.finish_reason or "length",
            completion_tokens=len(continuation.token_ids),
            logprobs=tuple(continuation.logprobs) if params.wants_logprobs else None,
        )


def _failure(continuation: Continuation) -> Failed | None:
    """What stopped a continuation that the back-end took for done."""
    if continuation.error is None:
        return None
    return Failed(
        continuation.error,
        "the model's logits are not finite (NaN or infinite): load it in float32 or bfloat16",
    )
