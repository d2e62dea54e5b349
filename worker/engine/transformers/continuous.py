"""Back-end: continuous batching. Requests join and leave the running batch at every step.

Two threads: the manager's own computes tokens; the dispatcher hears of what has ended, so that
no answer holds up the model, and rebuilds the manager when its loop broke.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterable
from queue import Queue
from threading import Lock, Thread

import torch

from db.errors import ModelLoadError, ModelUnavailable
from worker.engine.protocol import EngineConfig, Failed
from worker.engine.shared.apart import apart
from worker.engine.shared.backend import OnEnd, Progress
from worker.engine.shared.continuation import Continuation
from worker.engine.transformers import memory, paged, probe
from worker.engine.transformers.loading import LoadedModel
from worker.engine.transformers.rules import Rules, backend_name

_log = logging.getLogger(__name__)


class PagingUnsupported(ModelLoadError):
    """The model is loaded, but its cache can't be paged."""


class ContinuousBackend:
    """Paged continuous batching that survives running out of memory."""

    def __init__(
        self,
        loaded: LoadedModel,
        config: EngineConfig,
        *,
        rules: Rules,
        own_attention: bool = True,
    ) -> None:
        """Reads only. `own_attention`: ours, where it suits the model."""
        self.progress = Progress()
        self.capacity = 0
        self.kv_tokens: int | None = None
        self.longest: int | None = None
        self._loaded = loaded
        self._config = config
        self._rules = rules
        self._attention = paged.own_attention(loaded.model) if own_attention else None
        how = "sdpa" if self._attention is None else "packed"
        self._team = loaded.team
        shared = "" if self._team.size == 1 else f", tensor parallel {self._team.size}"
        self.name = backend_name(f"continuous, {how} attention{shared}", rules)
        self._events: paged.Events = Queue()
        self._lock = Lock()
        #: What was submitted and has not ended, by id.
        self._running: dict[str, Continuation] = {}
        #: None while it is rebuilt, and once nothing can be built any more.
        self._manager: paged.PagedManager | None = None
        #: Why nothing is taken any more.
        self._broken: Failed | None = None
        self._dispatcher = Thread(target=self._dispatch, name="promptmill-dispatch", daemon=True)

    def start(self, on_end: OnEnd) -> None:
        """Raises PagingUnsupported too, closed again, if the model can't be paged after all."""
        paged.check_version()
        self._limits = self._plan()
        try:
            trial = probe.expected(self._loaded)
            self._adopt(self._build(self._limits))
        except (RuntimeError, MemoryError, ValueError) as error:
            raise ModelUnavailable(_cannot_run(self._config.model, error)) from error
        self._dispatcher.start()
        self._team.on_broken(lambda reason: self._give_up(_failed(reason)))
        reason = self._try(trial)
        if reason is not None:
            self.close()
            if self._team.broken is not None:
                raise ModelUnavailable(_lost(self._config.model, self._team.broken))
            raise PagingUnsupported(
                f"model '{self._config.model}' can't be batched continuously, as paging it gives "
                f"{reason}: set the engine option batching=static"
            )
        self._on_end = on_end

    @property
    def broken(self) -> str | None:
        """Why it answers everything with a failure from now on; None: it does not."""
        return None if self._broken is None else self._broken.message

    def submit(self, continuations: Iterable[Continuation]) -> None:
        with self._lock:
            broken = self._broken
            if broken is None:
                for continuation in continuations:
                    self._running[continuation.id] = continuation
                    if self._manager is not None:
                        self._manager.add(continuation)
                return
        for continuation in continuations:
            self._on_end(continuation, broken)

    def cancel(self, continuations: Iterable[Continuation]) -> None:
        with self._lock:
            for continuation in continuations:
                continuation.cancelled = True
                dropped = self._running.pop(continuation.id, None)
                if dropped is not None and self._manager is not None:
                    self._manager.cancel_request(continuation.id)

    def close(self) -> None:
        if self._dispatcher.is_alive():
            self._events.put(None)
            self._dispatcher.join()
        with self._lock:
            manager, self._manager = self._manager, None
            self._running.clear()
        if manager is not None:
            manager.shut_down()

    def _try(self, trial: probe.Expected) -> str | None:
        """Why the model's paged attention is not to be trusted; None: it is."""
        ends: Queue[Failed | None] = Queue()
        tried = trial.continuation()
        self._on_end = lambda _, failure: ends.put(failure)
        self.submit([tried])
        failure = ends.get()
        self.progress.completion_tokens = 0
        return trial.disagreement(tried) if failure is None else failure.message

    def _plan(self) -> memory.Limits:
        config = self._config
        wanted = (config.max_concurrency, config.max_batch_tokens, config.kv_memory_fraction)
        on_cpu = self._loaded.device.type == "cpu"
        if not on_cpu and self._attention is None and self._team.size == 1:
            return memory.device_limits(*wanted)
        shape = paged.kv_shape(self._loaded.model, masks=self._attention is None)
        free = memory.available_ram() if on_cpu else memory.available_on(self._loaded.device)
        habits = memory.ON_CPU if on_cpu else memory.ON_GPU
        free = self._team.free(free)
        limits = memory.limits(habits, shape, free, self._loaded.context_length, *wanted)
        if not limits.pages:
            raise ModelUnavailable(
                f"model '{config.model}': {free // 2**20} MiB of free memory leave no room for a "
                "KV cache: free some, or raise the memory fraction"
            )
        return limits

    def _build(self, limits: memory.Limits) -> paged.PagedManager:
        turns = self._loaded.turns
        with turns.take():
            self._team.make_cache(limits)
            manager = paged.PagedManager(
                self._loaded.model,
                limits,
                self._events,
                self.progress,
                turns,
                self._team,
                attention=self._attention,
                adapters=self._loaded.adapters,
                rules=self._rules,
            )
        manager.start()
        return manager

    def _adopt(self, manager: paged.PagedManager) -> None:
        self._manager = manager
        self.capacity = manager.capacity
        self.kv_tokens = manager.kv_tokens
        self.longest = manager.longest

    def _dispatch(self) -> None:
        while (event := self._events.get()) is not None:
            if isinstance(event, paged.LoopFailed):
                self._recover(event)
            else:
                failure = None if event.error is None else _failed_alone(event.error)
                self._end([event.continuation], failure)

    def _end(self, continuations: Iterable[Continuation], failure: Failed | None) -> None:
        """Answer those that are still wanted."""
        with self._lock:
            ended = [one for one in continuations if self._running.pop(one.id, None) is not None]
        for continuation in ended:
            self._on_end(continuation, failure)

    def _recover(self, failed: paged.LoopFailed) -> None:
        """Go on after the loop broke: answer what can't go on, rebuild, resubmit the rest."""
        with self._lock:
            if self._broken is not None:
                return
            manager, self._manager = self._manager, None
            blamed = [one for one in self._running.values() if one.id in failed.in_batch]
            blamed = blamed or list(self._running.values())
        if manager is not None:
            manager.shut_down()
        del manager
        _free_memory()
        if not failed.out_of_memory:
            _log.error(
                "the generation loop broke and is restarted: %s",
                failed.reason,
                extra={"action": "engine_restart"},
            )
            self._end(blamed, _failed(failed.reason))
        elif self._limits.at_floor:
            self._end(blamed, _out_of_memory(failed.reason))
        else:
            self._shrink()
        self._rebuild()

    def _shrink(self) -> None:
        self._limits = self._limits.halved()
        _log.warning(
            "out of memory: going on with at most %d requests at once",
            self._limits.requests,
            extra={"action": "engine_shrink", "capacity": self._limits.requests},
        )

    def _rebuild(self) -> None:
        while True:
            try:
                manager = apart(lambda: self._build(self._limits))
                break
            except (RuntimeError, MemoryError, ValueError) as error:
                if not memory.is_out_of_memory(error) or self._limits.at_floor:
                    self._give_up(_failed(f"{type(error).__name__}: {error}"))
                    return
            self._shrink()
            _free_memory()
        with self._lock:
            self._adopt(manager)
            too_long = [
                one for one in self._running.values() if one.needed_tokens > manager.longest
            ]
            for continuation in self._running.values():
                if continuation.needed_tokens <= manager.longest:
                    manager.add(continuation)
        self._end(too_long, _out_of_memory("the KV cache had to shrink below this request"))

    def _give_up(self, failure: Failed) -> None:
        with self._lock:
            if self._broken is not None:
                return
            self._broken = failure
            self.capacity = 0
            left = list(self._running.values())
        self._end(left, failure)


def _cannot_run(model: str, error: Exception) -> str:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if memory.is_out_of_memory(error):
        return (
            f"model '{model}' is loaded, but its KV cache finds no room ({reason}): lower the "
            "memory fraction or the concurrency, or use a larger device"
        )
    return f"model '{model}' is loaded, but does not run ({reason})"


def _lost(model: str, reason: str) -> str:
    return f"model '{model}' is loaded, but a device that shares it is lost: {reason}"


def _failed(reason: str) -> Failed:
    return Failed("engine_error", f"the engine broke while generating: {reason}", retriable=True)


def _failed_alone(reason: str) -> Failed:
    return Failed("engine_error", f"the model failed on this request: {reason}", retriable=True)


def _out_of_memory(reason: str) -> Failed:
    return Failed(
        "out_of_memory",
        f"the device has too little memory for this request even alone: {reason}",
        retriable=True,
    )


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
