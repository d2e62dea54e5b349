"""Back-end: batches of `generate`, for models whose cache can't be paged.

Requests of like length are padded and run together to the end of the longest. The tokens are
chosen by the same sampler as in continuous batching: `generate` only runs the model, so every
parameter means the same in both back-ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from threading import Condition, Thread
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria
from transformers.generation.stopping_criteria import StoppingCriteriaList

from worker.engine.protocol import EngineConfig, Failed
from worker.engine.transformers import memory, sampler
from worker.engine.transformers.backend import OnEnd, Progress
from worker.engine.transformers.continuation import Continuation
from worker.engine.transformers.loading import LoadedModel
from worker.engine.transformers.logprobs import record_logprobs

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


class StaticBackend:
    """One thread that runs one padded batch after the other."""

    def __init__(
        self, loaded: LoadedModel, config: EngineConfig, token_text: Callable[[int], str]
    ) -> None:
        self.progress = Progress()
        on_cpu = loaded.device.type == "cpu"
        self.capacity = config.max_concurrency or (CPU_BATCH if on_cpu else DEVICE_BATCH)
        self.kv_tokens: int | None = None
        self.longest: int | None = None
        self._loaded = loaded
        self._token_text = token_text
        # A state has no positions to mask, so padding would be read as text.
        self._same_length = bool(getattr(loaded.model, "_is_stateful", False))
        self._pending: list[Continuation] = []
        self._closed = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="promptmill-generate", daemon=True)

    def start(self, on_end: OnEnd) -> None:
        self._on_end = on_end
        # `generate` fills what a call leaves open from the model's own config.
        self._loaded.model.generation_config = _neutral(self._loaded)
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
            out_of_memory = memory.is_out_of_memory(error)
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

    def _forward(self, batch: list[Continuation]) -> None:
        for continuation in batch:
            continuation.start()
        chooser = _Chooser(batch, self.progress, self._token_text, lambda: self._closed)
        longest = max(one.limit for one in batch)
        with self._loaded.turns.take(), torch.inference_mode():
            self._loaded.model.generate(
                **self._inputs(batch),
                max_new_tokens=longest,
                logits_processor=LogitsProcessorList([chooser]),
                stopping_criteria=StoppingCriteriaList([_Stopper(chooser)]),
            )

    def _inputs(self, batch: list[Continuation]) -> dict[str, torch.Tensor]:
        """Prompts as one rectangle; decoders read up to its right edge, so they pad left."""
        width = max(len(one.prompt_ids) for one in batch)
        ids = torch.full((len(batch), width), _pad_id(self._loaded), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for at, one in enumerate(batch):
            length = len(one.prompt_ids)
            there = (
                slice(0, length) if self._loaded.encoder_decoder else slice(width - length, width)
            )
            ids[at, there] = torch.tensor(list(one.prompt_ids))
            mask[at, there] = 1
        device = self._loaded.device
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


class _Chooser(LogitsProcessor):
    """Chooses each row's next token and leaves `generate` no other."""

    def __init__(
        self,
        batch: list[Continuation],
        progress: Progress,
        token_text: Callable[[int], str],
        closed: Callable[[], bool],
    ) -> None:
        self._batch = batch
        self._progress = progress
        self._token_text = token_text
        self._closed = closed
        self.tokens: list[int] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        logits = scores.float()
        rows = [sampler.Row(temperature=0.0) if one.done else one.row() for one in self._batch]
        tokens = sampler.choose(logits, rows)
        live = [at for at, one in enumerate(self._batch) if not one.done]
        index = torch.tensor(live, device=logits.device)
        record_logprobs(
            [self._batch[at] for at in live], logits[index], tokens[index], self._token_text
        )
        self._progress.step(len(live))
        self.tokens = tokens.tolist()
        only = torch.full_like(scores, -torch.inf)
        return only.scatter(1, tokens.clamp(min=0).unsqueeze(1), 0.0)

    def accept(self) -> list[bool]:
        """Hand each token to its continuation; which rows are done."""
        for continuation, token in zip(self._batch, self.tokens, strict=True):
            if not continuation.done:
                continuation.accept(token)
        closed = self._closed()
        return [closed or one.done for one in self._batch]


class _Stopper(StoppingCriteria):
    """Ends `generate` when every row is done."""

    def __init__(self, chooser: _Chooser) -> None:
        self._chooser = chooser

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        del scores, kwargs
        return torch.tensor(self._chooser.accept(), device=input_ids.device)


def _failure(reason: str, out_of_memory: bool) -> Failed:
    if out_of_memory:
        message = f"the device has too little memory for this request even alone: {reason}"
        return Failed("out_of_memory", message, retriable=True)
    return Failed("engine_error", f"the model failed on this request: {reason}", retriable=True)


def _pad_id(loaded: LoadedModel) -> int:
    """Any token will do: the attention mask hides it."""
    for owner in (loaded.tokenizer, loaded.model.config.get_text_config()):
        value = getattr(owner, "pad_token_id", None)
        if isinstance(value, int) and value >= 0:
            return value
    return 0


def _neutral(loaded: LoadedModel) -> GenerationConfig:
    """No sampling and no end token of its own; an encoder-decoder keeps its start token."""
    return GenerationConfig(
        do_sample=False,
        pad_token_id=_pad_id(loaded),
        bos_token_id=loaded.model.generation_config.bos_token_id,
        decoder_start_token_id=loaded.decoder_start_id,
    )
