"""The options of assisted decoding, and the draft model that they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from db.errors import ModelLoadError, SettingsError
from db.faults import Faults
from worker.engine.options import whole
from worker.engine.protocol import EngineConfig
from worker.engine.transformers.assisted.cached import CachedModel, trial
from worker.engine.transformers.assisted.drafting import Drafter, LookupDrafter, ModelDrafter
from worker.engine.transformers.loading import LoadedModel, load

#: Engine options that ask for it.
OPTIONS = ("assistant", "prompt_lookup", "draft_tokens")
#: Tokens of a draft: each costs the model a row of logits.
MOST = 100
#: Characters of its name that are told with every result: it is not part of what makes a text.
_NAMED = 40


@dataclass(frozen=True, slots=True)
class Assistance:
    """Who proposes tokens: exactly one of `assistant` and `lookup` is given."""

    #: A folder or a hub id.
    assistant: str | None = None
    #: Tokens that are looked up at once.
    lookup: int | None = None
    #: Tokens of the assistant's drafts at most; None: as it goes.
    draft_tokens: int | None = None

    def drafter(self, loaded: LoadedModel, config: EngineConfig) -> Drafter:
        """Raises ModelLoadError where the assistant can't be loaded, or can't help this model."""
        reason = _why_not(loaded)
        if reason:
            raise ModelLoadError(
                f"model '{config.model}' can't be assisted, as {reason}: leave out the engine "
                f"option '{'prompt_lookup' if self.assistant is None else 'assistant'}'"
            )
        if self.assistant is None:
            return LookupDrafter(self.lookup or 1)
        return self._model_drafter(self.assistant, loaded, config)

    def _model_drafter(
        self, assistant: str, loaded: LoadedModel, config: EngineConfig
    ) -> ModelDrafter:
        try:
            small = load(replace(config, model=assistant, revision=None))
        except ModelLoadError as error:
            raise ModelLoadError(f"engine option 'assistant': {error.message}") from error
        reason = _why_not(small) or _difference(loaded.tokenizer, small.tokenizer)
        if reason:
            raise ModelLoadError(
                f"assistant '{assistant}' can't draft for model '{config.model}', as {reason}: "
                "name a smaller model of the same family"
            )
        place = Path(assistant)
        name = (place.resolve() if place.is_dir() else place).name[:_NAMED]
        reader = CachedModel(small.model, small.device)
        return ModelDrafter(
            name, reader, loaded.vocabulary, small.context_length, self.draft_tokens
        )


def read(options: Mapping[str, str], batching: str) -> Assistance | None:
    """What the options ask for; None: nothing. Raises SettingsError with all that is wrong."""
    faults = Faults()
    assistant = options.get("assistant")
    lookup = faults.of(whole, options, "prompt_lookup", MOST)
    tokens = faults.of(whole, options, "draft_tokens", MOST)
    for fault in _contradictions(options, batching):
        faults.add(SettingsError(fault))
    faults.raise_all()
    return None if assistant is None and lookup is None else Assistance(assistant, lookup, tokens)


def _contradictions(options: Mapping[str, str], batching: str) -> Iterator[str]:
    assistant, lookup = options.get("assistant"), options.get("prompt_lookup")
    if assistant is not None and lookup is not None:
        yield "engine options 'assistant' and 'prompt_lookup' exclude each other: give one"
    if assistant is not None and not assistant.strip():
        yield "engine option 'assistant': it names no model"
    if "draft_tokens" in options and assistant is None:
        yield "engine option 'draft_tokens' needs 'assistant'; 'prompt_lookup' says itself how many"
    if batching != "auto" and (assistant is not None or lookup is not None):
        yield (
            f"engine options '{'prompt_lookup' if assistant is None else 'assistant'}' and "
            f"'batching' exclude each other: assisted decoding takes one prompt after the other"
        )


def _why_not(loaded: LoadedModel) -> str | None:
    """Why such a model neither is assisted nor assists; None: it may."""
    if loaded.encoder_decoder:
        return "it is an encoder-decoder"
    if getattr(loaded.model, "_is_stateful", False):
        return "it is a state-space model"
    wrong = trial(loaded)
    return None if wrong is None else f"it does not take tokens back ({wrong})"


def _difference(tokenizer: Any, other: Any) -> str | None:
    """Where two vocabularies differ; None: an id means the same in both.

    Added tokens, such as those of a chat, may be there in one alone.
    """
    ours, theirs = (
        {place: token for token, place in one.get_vocab().items()} for one in (tokenizer, other)
    )
    added = {*tokenizer.get_added_vocab(), *other.get_added_vocab()}
    for place in sorted({*ours, *theirs}):
        pair = {ours.get(place), theirs.get(place)}
        if len(pair) > 1 and not (None in pair and pair - {None} <= added):
            names = " and ".join(repr(one.get(place)) for one in (ours, theirs))
            return f"their vocabularies differ (token {place} is {names})"
    return None
