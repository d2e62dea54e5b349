"""Back-end: batches of `generate`, for models whose cache can't be paged.

Requests of like length are padded and run together to the end of the longest. The tokens are
chosen by the same sampler as in continuous batching: `generate` only runs the model, so every
parameter means the same in both back-ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria
from transformers.generation.stopping_criteria import StoppingCriteriaList

from worker.engine.protocol import EngineConfig
from worker.engine.shared.backend import OnEnd, Progress
from worker.engine.shared.continuation import Continuation, look_ahead
from worker.engine.shared.padded import PaddedBackend
from worker.engine.transformers import memory, sampler
from worker.engine.transformers.loading import LoadedModel
from worker.engine.transformers.logprobs import record_logprobs
from worker.engine.transformers.rules import Rules, backend_name


class StaticBackend(PaddedBackend):
    """`generate`, one padded batch after the other."""

    def __init__(self, loaded: LoadedModel, config: EngineConfig, rules: Rules) -> None:
        # A state has no positions to mask, so padding would be read as text.
        stateful = bool(getattr(loaded.model, "_is_stateful", False))
        super().__init__(config, on_cpu=loaded.device.type == "cpu", same_length=stateful)
        self._loaded = loaded
        self._rules = rules
        self.name = backend_name(self.name, rules)

    def start(self, on_end: OnEnd) -> None:
        # `generate` fills what a call leaves open from the model's own config.
        self._loaded.model.generation_config = _neutral(self._loaded)
        super().start(on_end)

    def _is_out_of_memory(self, error: Exception) -> bool:
        return memory.is_out_of_memory(error)

    def _forward(self, batch: list[Continuation]) -> None:
        for continuation in batch:
            continuation.start()
        chooser = _Chooser(batch, self.progress, self._rules, lambda: self._closed)
        longest = max(one.limit for one in batch)
        adapters = self._loaded.adapters.rows([one.params.adapter for one in batch])
        with self._loaded.turns.take(), torch.inference_mode(), adapters:
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
        rules: Rules,
        closed: Callable[[], bool],
    ) -> None:
        self._batch = batch
        self._progress = progress
        self._rules = rules
        self._closed = closed
        self.tokens: list[int] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        logits = scores.float()
        look_ahead([one for one in self._batch if not one.done], logits.shape[1])
        rows = [sampler.Row(temperature=0.0) if one.done else one.row() for one in self._batch]
        live = [at for at, one in enumerate(self._batch) if not one.done]
        tokens = sampler.choose(self._rules.apply(logits, self._batch), rows)
        index = torch.tensor(live, device=logits.device)
        record_logprobs([self._batch[at] for at in live], logits[index], tokens[index])
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
