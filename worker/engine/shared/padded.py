"""Requests of like length, run together to the end of the longest: what is the same for any model.

It knows no torch: `static` runs PyTorch models this way, the engine `keras` its own.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from threading import Condition, Thread

from worker.engine.protocol import EngineConfig, Failed
from worker.engine.shared.backend import OnEnd, Progress
from worker.engine.shared.continuation import Continuation

#: Prompts at once when nobody says: a padded batch costs memory for its longest member.
CPU_BATCH, DEVICE_BATCH = 8, 32

_log = logging.getLogger(__name__)


def pick_batch(pending: Sequence[Continuation], size: int, same_length: bool) -> list[Continuation]:
    """The oldest, and up to `size` in all of those whose prompt is about as long.

    About: at most a quarter and 8 tokens longer or shorter; `same_length`: not at all.
    """
    length = len(pending[0].prompt_ids)
    slack = 0 if same_length else length // 4 + 8
    near = [one for one in pending if abs(len(one.prompt_ids) - length) <= slack]
    return near[:size]


class PaddedBackend(ABC):
    """One thread that runs one padded batch after the other."""

    name = "static"

    def __init__(self, config: EngineConfig, *, on_cpu: bool, same_length: bool = False) -> None:
        """`same_length`: the model's prompts can't be padded."""
        self.progress = Progress()
        self.capacity = config.max_concurrency or (CPU_BATCH if on_cpu else DEVICE_BATCH)
        self.kv_tokens: int | None = None
        self.longest: int | None = None
        self._same_length = same_length
        self._pending: list[Continuation] = []
        self._closed = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="promptmill-generate", daemon=True)

    @abstractmethod
    def _forward(self, batch: list[Continuation]) -> None:
        """Run a batch until each of it is done or the back-end is closed. May raise anything."""

    @abstractmethod
    def _is_out_of_memory(self, error: Exception) -> bool:
        """Whether `_forward` raised it because memory ran out."""

    @property
    def broken(self) -> str | None:
        return None

    def start(self, on_end: OnEnd) -> None:
        self._on_end = on_end
        self._thread.start()

    def submit(self, continuations: Iterable[Continuation]) -> None:
        with self._changed:
            self._pending.extend(continuations)
            self._changed.notify()

    def cancel(self, continuations: Iterable[Continuation]) -> None:
        for continuation in continuations:
            continuation.cancelled = True

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._generate(batch)

    def _next_batch(self) -> list[Continuation]:
        """Wait for work; empty once closed."""
        with self._changed:
            while True:
                self._pending = [one for one in self._pending if not one.cancelled]
                if self._closed or self._pending:
                    break
                self._changed.wait()
            if self._closed:
                return []
            batch = pick_batch(self._pending, self.capacity, self._same_length)
            taken = {one.id for one in batch}
            self._pending = [one for one in self._pending if one.id not in taken]
            return batch

    def _generate(self, batch: list[Continuation]) -> None:
        """Run a batch to its end; one that fails is run again in halves, down to the culprit."""
        try:
            self._forward(batch)
        except Exception as error:  # noqa: BLE001 - whatever a model raises is that batch's answer
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            out_of_memory = self._is_out_of_memory(error)
            _log.debug("a batch failed", exc_info=error, extra={"action": "batch_failed"})
        else:
            for continuation in batch:
                self._finish(continuation, None)
            return
        self._divide(batch, reason, out_of_memory)

    def _divide(self, batch: list[Continuation], reason: str, out_of_memory: bool) -> None:
        if out_of_memory and self.capacity > 1:
            self.capacity //= 2
            _log.warning(
                "out of memory: going on with at most %d requests at once",
                self.capacity,
                extra={"action": "engine_shrink", "capacity": self.capacity},
            )
        elif len(batch) == 1:
            self._finish(batch[0], _failure(reason, out_of_memory))
            return
        half = max(1, len(batch) // 2)
        for part in (batch[:half], batch[half:]):
            for continuation in part:
                continuation.restart()
            if part:
                self._generate(part)

    def _finish(self, continuation: Continuation, failure: Failed | None) -> None:
        if not continuation.cancelled:
            self._on_end(continuation, failure)


def _failure(reason: str, out_of_memory: bool) -> Failed:
    if out_of_memory:
        message = f"the device has too little memory for this request even alone: {reason}"
        return Failed("out_of_memory", message, retriable=True)
    return Failed("engine_error", f"the model failed on this request: {reason}", retriable=True)
