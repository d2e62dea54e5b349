"""Stored log-probabilities in the two shapes that OpenAI's endpoints give them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import orjson

#: What OpenAI gives for a token that can't come; JSON has no minus infinity.
IMPOSSIBLE = -9999.0


def chat_logprobs(stored: str | None) -> dict[str, Any] | None:
    """As in a chat completion's choice; None where none were asked for."""
    if stored is None:
        return None
    content = [
        {**_chat_token(token), "top_logprobs": [_chat_token(top) for top in token["top"]]}
        for token in orjson.loads(stored)
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(stored: str | None, start: int) -> dict[str, Any] | None:
    """As in a text completion's choice; `start` is where in its text the first token stands."""
    if stored is None:
        return None
    tokens = orjson.loads(stored)
    texts = [token["token"] for token in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [_logprob(token) for token in tokens],
        "top_logprobs": _alternatives(tokens),
        "text_offset": list(accumulate(map(len, texts), initial=start))[: len(texts)],
    }


def _alternatives(tokens: list[dict[str, Any]]) -> list[dict[str, float]] | None:
    """By text, as OpenAI has them: of two tokens with one text the likelier one stands."""
    if not any(token["top"] for token in tokens):
        return None
    return [{top["token"]: _logprob(top) for top in reversed(token["top"])} for token in tokens]


def _chat_token(token: Mapping[str, Any]) -> dict[str, Any]:
    text: str = token["token"]
    # A token may be a part of a character; what its bytes were is not stored.
    whole = "\ufffd" not in text
    return {
        "token": text,
        "logprob": _logprob(token),
        "bytes": list(text.encode()) if whole else None,
    }


def _logprob(token: Mapping[str, Any]) -> float:
    value: float | None = token["logprob"]
    return IMPOSSIBLE if value is None else value
