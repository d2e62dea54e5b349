"""The names that a request may use, and what to offer for one that it may not."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass

from db.modes import Mode
from db.sampling import parameter_names
from producer.reading.texts import Refusal, shown

#: What every request may have besides its text.
_COMMON = ("custom_id", "model", "params")


@dataclass(frozen=True, slots=True)
class Names:
    """What a request of one mode is made of."""

    mode: Mode
    #: Keys that may hold the prompt, the usual one first.
    prompts: tuple[str, ...]
    #: All keys that are no parameters.
    request: tuple[str, ...]
    parameters: frozenset[str]

    @property
    def known(self) -> tuple[str, ...]:
        return (*self.request, *sorted(self.parameters))

    @property
    def needed(self) -> tuple[str, ...]:
        """One of these must be there."""
        return tuple(key for key in (*self.prompts, "messages") if key in self.request)


def _names(mode: Mode, prompts: tuple[str, ...], *others: str) -> Names:
    request = (*prompts, *others, *_COMMON)
    return Names(mode, prompts, request, frozenset(parameter_names(mode)))


#: By mode.
NAMES = {
    Mode.GENERATE: _names(Mode.GENERATE, ("prompt",), "messages", "tools"),
    Mode.SCORE: _names(Mode.SCORE, ("prompt", "text"), "messages", "completion"),
    Mode.EMBED: _names(Mode.EMBED, ("prompt", "text")),
}

#: Names that people use for ours and that no spelling distance finds.
_MEANT = {
    "id": "custom_id",
    "input": "prompt",
    "instruction": "prompt",
    "question": "prompt",
    "text": "prompt",
    "chat": "messages",
    "conversations": "messages",
    "parameters": "params",
    "sampling_params": "params",
    "schema": "response_format",
    "json_schema": "response_format",
}

#: Real features of other servers that promptmill does not have.
_UNSUPPORTED = frozenset(
    {
        "audio",
        "best_of",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "modalities",
        "prediction",
        "presence_penalty",
        "reasoning_effort",
        "service_tier",
        "stream_options",
        "suffix",
        "verbosity",
        "web_search_options",
    }
)


def nearest(key: object, known: Collection[str]) -> str:
    """The end of a message about an unknown key: the nearest valid name, else all of them."""
    meant = _MEANT.get(str(key))
    near = (
        [meant] if meant in known else difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    )
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"


def check_parameter_name(key: object, names: Names) -> None:
    """Refusal unless `key` is the name of a parameter of the mode."""
    if key in names.parameters:
        return
    if key in _UNSUPPORTED:
        raise Refusal(f"unknown parameter {shown(key)}: not supported yet, remove it")
    others = elsewhere(key, names)
    if others and str(key) not in _MEANT:
        raise Refusal(f"unknown key {shown(key)}{others}: give that --mode, or remove it")
    raise Refusal(f"unknown key {shown(key)}{others}: {nearest(key, names.known)}")


def elsewhere(key: object, names: Names) -> str:
    """Which other modes have this key, for a message; empty for none."""
    modes = [mode for mode, other in NAMES.items() if mode is not names.mode and key in other.known]
    return f" (of mode {' or '.join(modes)})" if modes else ""
