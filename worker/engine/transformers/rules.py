"""What a checkpoint's `generation_config` asks of each token, as `model.generate` follows it.

Some checkpoints are made for rules: BART's summaries begin with a forced token and never repeat
three tokens. The rules are transformers' own processors, one list a sequence. Sampling parameters
are not among them: temperature, top-k and top-p are the request's.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import GenerationConfig

from db.errors import ModelLoadError
from worker.engine.shared.continuation import Continuation
from worker.engine.shared.generation_rules import FOLLOWED, REFUSED, SEARCH, asked

#: Characters of a back-end's name that are recorded, and of the rules that are logged.
_NAME, _LOGGED = 80, 1000

_log = logging.getLogger(__name__)


class Rules:
    """The rules of one loaded model."""

    def __init__(self, model: Any, end_ids: frozenset[int], *, follow: bool = True) -> None:
        """Reads `model.generation_config`, which may change later. `follow`: False: none of it."""
        config = getattr(model, "generation_config", None) if follow else None
        self._model = model
        self._end_ids = end_ids
        self._values = asked(config, FOLLOWED)
        self._refused = asked(config, REFUSED)
        self._search = asked(config, SEARCH)
        self._processors: WeakKeyDictionary[Continuation, Any] = WeakKeyDictionary()

    @property
    def names(self) -> list[str]:
        """Fields that are followed; none: the model has no rules."""
        return list(self._values)

    @property
    def forces_end(self) -> bool:
        """Whether a text that reaches its limit is given an end token."""
        return "forced_eos_token_id" in self._values

    def check(self, model: str) -> None:
        """Raise ModelLoadError for a rule that can't be followed; log the others."""
        if self._refused:
            raise ModelLoadError(
                f"model '{model}': its generation_config asks for {', '.join(self._refused)}, "
                "which is not followed here: set the engine option generation_rules=none to "
                "go without its rules"
            )
        if self._values:
            _log.info(
                "the checkpoint's rules are followed: %s",
                ", ".join(f"{name}={value}" for name, value in self._values.items())[:_LOGGED],
                extra={"action": "engine_rules"},
            )
        if self._search:
            _log.warning(
                "the checkpoint's generation_config asks for %s: one text is made at a time here, "
                "without a search",
                ", ".join(f"{name}={value}" for name, value in self._search.items()),
                extra={"action": "engine_no_search"},
            )

    def apply(self, logits: Tensor, continuations: Sequence[Continuation]) -> Tensor:
        """The logits `[rows, vocabulary]` under the rules; without any, the same tensor."""
        if not self._values:
            return logits
        ruled = [at for at, one in enumerate(continuations) if one.ruled and not one.done]
        logits = logits.clone()
        for at in ruled:
            one = continuations[at]
            ids = torch.tensor([[*self._before(one), *one.token_ids]], device=logits.device)
            logits[at] = self._of(one, logits.device)(ids, logits[at : at + 1])[0]
        return logits

    def _before(self, one: Continuation) -> Sequence[int]:
        """The ids that `generate` counts before the text."""
        return one.penalised_ids if self._model.config.is_encoder_decoder else one.prompt_ids

    def _of(self, one: Continuation, device: torch.device) -> Any:
        processors = self._processors.get(one)
        if processors is None:
            processors = self._processors[one] = self._made(one, device)
        return processors

    def _made(self, one: Continuation, device: torch.device) -> Any:
        values = copy.deepcopy(self._values)
        if "repetition_penalty" in one.params.model_fields_set:
            values.pop("repetition_penalty", None)  # the request has its own
        before = len(self._before(one))
        config = GenerationConfig(**values)
        config.max_length = before + one.limit
        ends: Any = sorted(one.end_ids or self._end_ids)
        config._eos_token_tensor = torch.tensor(ends, device=device) if ends else None  # noqa: SLF001
        prompt = torch.tensor([list(one.prompt_ids)], device=device)
        return self._model._get_logits_processor(  # noqa: SLF001
            generation_config=config,
            input_ids_seq_length=before,
            encoder_input_ids=prompt,
            device=device,
        )


def backend_name(name: str, rules: Rules) -> str:
    """A back-end's name as results record it, 80 characters at most, with the rules it follows."""
    if not rules.names:
        return name
    named = f"{name}, rules: {', '.join(rules.names)}"
    return named if len(named) <= _NAME else f"{named[: _NAME - 1]}…"
