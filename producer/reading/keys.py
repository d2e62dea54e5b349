"""The names that a request may use, and what to offer for one that it may not."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from db.sampling import parameter_names
from producer.reading.texts import Refusal, shown

#: Keys of a completion or chat that are no generation parameters.
REQUEST_KEYS = ("prompt", "messages", "custom_id", "model", "params")

PARAMETER_NAMES = frozenset(parameter_names())

_KNOWN = (*REQUEST_KEYS, *sorted(PARAMETER_NAMES))

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
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "reasoning_effort",
        "service_tier",
        "stream_options",
        "suffix",
        "tool_choice",
        "tools",
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


def check_parameter_name(key: object) -> None:
    """Refusal unless `key` is the name of a generation parameter."""
    if key in PARAMETER_NAMES:
        return
    if key in _UNSUPPORTED:
        raise Refusal(f"unknown parameter {shown(key)}: not supported yet, remove it")
    raise Refusal(f"unknown key {shown(key)}: {nearest(key, _KNOWN)}")
