"""Back-end: scores and embeddings, beside the one that generates and with the same model.

Texts of like length are padded and read in one forward pass, oldest first. A pass takes the
model's turn, between two steps of a generation that runs meanwhile.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from threading import Condition, Thread

import torch

from worker.engine.protocol import Cancelled, EngineConfig, Failed, Measurement, OnDone, Outcome
from worker.engine.shared.apart import apart
from worker.engine.shared.backend import Progress
from worker.engine.shared.prompt import Prompter
from worker.engine.telling import tell
from worker.engine.transformers import memory
from worker.engine.transformers.loading import LoadedModel
from worker.engine.transformers.measuring import scoring
from worker.engine.transformers.measuring.body import Body
from worker.engine.transformers.measuring.measurement import Measurable, Measuring, pick

#: A pass of fewer tokens is not worth halving.
_FLOOR = 16

_log = logging.getLogger(__name__)


class Measurer:
    """Answers each request exactly once. Every method may be called from any thread."""

    def __init__(self, loaded: LoadedModel, config: EngineConfig, prompter: Prompter) -> None:
        """Before any other back-end is made: they change how the model attends."""
        self.progress = Progress()
        self.prompt_tokens = 0
        on_cpu = loaded.device.type == "cpu"
        default = memory.CPU_BATCH_TOKENS if on_cpu else memory.DEVICE_BATCH_TOKENS
        #: Tokens in one pass, padding included; falls after running out of memory.
        self.batch_tokens = config.max_batch_tokens or default
        self._body = Body(loaded)
        self._turns = loaded.turns
        self._adapters = loaded.adapters
        self._logprobs = prompter.logprobs
        self._measurable = Measurable(
            prompter, loaded.encoder_decoder, loaded.context_length, loaded.adapters.digests
        )
        #: What has not been answered, by id; and of it what has not begun, oldest first.
        self._open: dict[str, Measuring] = {}
        self._pending: list[Measuring] = []
        self._closed = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="promptmill-measure", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def measure(self, request: Measurement, on_done: OnDone) -> None:
        """As MeasuringEngine's."""
        if not self._body.apart:
            on_done(request.id, _no_body())
            return
        one = self._measurable.read(request, on_done)
        refusal = one if isinstance(one, Failed) else self._enter(one)
        if refusal is not None:
            on_done(request.id, refusal)

    def cancel(self, request_id: str) -> None:
        with self._changed:
            one = self._open.get(request_id)
        if one is not None:
            self._answer(one, Cancelled())

    def close(self) -> None:
        """Answer Cancelled for what is left. Idempotent."""
        with self._changed:
            self._closed = True
            left = list(self._open.values())
            self._changed.notify()
        for one in left:
            self._answer(one, Cancelled())
        if self._thread.is_alive():
            self._thread.join()

    def _enter(self, one: Measuring) -> Cancelled | Failed | None:
        with self._changed:
            if self._closed:
                return Cancelled()
            if one.request.id in self._open:
                message = f"the engine already works on a request with the id '{one.request.id}'"
                return Failed("duplicate_id", message)
            if not self._open:
                self.progress.step(0)  # it stood idle, not still
            self._open[one.request.id] = one
            self._pending.append(one)
            self.prompt_tokens += len(one.prompt_ids)
            self._changed.notify()
        return None

    def _answer(self, one: Measuring, outcome: Outcome) -> None:
        """Once."""
        with self._changed:
            if one.dropped:
                return
            one.dropped = True
            del self._open[one.request.id]
        tell(one.on_done, one.request.id, outcome)

    def _run(self) -> None:
        while batch := self._next_batch():
            self._work(batch)

    def _next_batch(self) -> list[Measuring]:
        """Wait for work; empty once closed."""
        with self._changed:
            while True:
                self._pending = [one for one in self._pending if not one.dropped]
                if self._closed:
                    return []
                if self._pending:
                    break
                self._changed.wait()
            batch = pick(self._pending, self.batch_tokens)
            taken = set(map(id, batch))
            self._pending = [one for one in self._pending if id(one) not in taken]
            return batch

    def _work(self, batch: Sequence[Measuring]) -> None:
        """Run a batch; one that fails is run again in halves, down to the culprit."""
        live = [one for one in batch if not one.dropped]
        if not live or self._closed:
            return
        try:
            # A thread that ends: a team of threads of its own would slow generation down.
            apart(lambda: self._pass(live))
        except Exception as error:  # noqa: BLE001 - whatever a model raises is that batch's answer
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            out_of_memory = memory.is_out_of_memory(error)
            _log.debug("a batch failed", exc_info=error, extra={"action": "batch_failed"})
        else:
            self.progress.step(sum(len(one.scored_ids) for one in live))
            for one in live:
                self._answer(one, one.outcome or _failed("it gave no outcome"))
            return
        self._divide(live, reason, out_of_memory)

    def _pass(self, batch: Sequence[Measuring]) -> None:
        adapters = self._adapters.rows([one.request.params.adapter for one in batch])
        with self._turns.take(), self._body.ready(), adapters:
            scoring.measure(self._body, batch, self._logprobs)

    def _divide(self, batch: Sequence[Measuring], reason: str, out_of_memory: bool) -> None:
        if out_of_memory and self._shrink(len(batch)):
            pass
        elif len(batch) == 1:
            self._answer(batch[0], _out_of_memory(reason) if out_of_memory else _failed(reason))
            return
        half = max(1, len(batch) // 2)
        for part in (batch[:half], batch[half:]):
            self._work(part)

    def _shrink(self, texts: int) -> bool:
        """Halve what one pass takes; False: of one text alone there is nothing left to halve."""
        gc.collect()
        if torch.cuda.is_available():
            # Not while a back-end that is rebuilt captures its graphs, which that would break.
            with self._turns.take():
                torch.cuda.empty_cache()
        if texts == 1:
            return self._body.shrink()
        self.batch_tokens = max(_FLOOR, self.batch_tokens // 2)
        _log.warning(
            "out of memory: going on with at most %d tokens in one pass",
            self.batch_tokens,
            extra={"action": "engine_shrink", "capacity": self.batch_tokens},
        )
        return True


def _no_body() -> Failed:
    return Failed(
        "unsupported_mode",
        "the model can't be told from its head, so it neither scores nor embeds: submit the batch "
        "in mode generate, or use another model",
    )


def _failed(reason: str) -> Failed:
    return Failed("engine_error", f"the model failed on this request: {reason}", retriable=True)


def _out_of_memory(reason: str) -> Failed:
    return Failed(
        "out_of_memory",
        f"the device has too little memory for this request even alone: {reason}",
        retriable=True,
    )
