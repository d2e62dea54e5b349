"""Stored log-probabilities in the two shapes that OpenAI's endpoints give them."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Mapping, Sequence
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
    texts = [_completion_token(token) for token in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [_logprob(token) for token in tokens],
        "top_logprobs": _alternatives(tokens),
        "text_offset": _offsets(tokens, start),
    }


def _alternatives(tokens: list[dict[str, Any]]) -> list[dict[str, float]] | None:
    """By text, as OpenAI has them: of two tokens with one text the likelier one stands."""
    if not any(token["top"] for token in tokens):
        return None
    return [
        {_completion_token(top): _logprob(top) for top in reversed(token["top"])}
        for token in tokens
    ]


def _chat_token(token: Mapping[str, Any]) -> dict[str, Any]:
    data = _bytes(token)
    return {
        "token": token["token"],
        "logprob": _logprob(token),
        "bytes": None if data is None else list(data),
    }


def _bytes(token: Mapping[str, Any]) -> bytes | None:
    """What a token adds to the text; None: it is part of a character, and was stored without."""
    if token.get("bytes") is not None:
        return bytes(token["bytes"])
    text: str = token["token"]
    return None if "\ufffd" in text else text.encode()


def _completion_token(token: Mapping[str, Any]) -> str:
    """Text where it is whole characters, else as OpenAI writes bytes: `bytes:\\xe2\\x82`."""
    data = token.get("bytes")
    if data is None:
        return str(token["token"])
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _offsets(tokens: Sequence[Mapping[str, Any]], start: int) -> list[int]:
    """Where each token begins in the text; within a character, where that begins."""
    offsets, position = [], start
    decoder = getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        offsets.append(position)
        data = _bytes(token)
        position += len(token["token"]) if data is None else len(decoder.decode(data))
    return offsets


def _logprob(token: Mapping[str, Any]) -> float:
    value: float | None = token["logprob"]
    return IMPOSSIBLE if value is None else value
