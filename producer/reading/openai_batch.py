"""Lines of an OpenAI batch file: `{"custom_id", "method", "url", "body"}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from producer.reading.keys import nearest
from producer.reading.texts import Refusal, kind, shown

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

_KEYS = ("custom_id", "method", "url", "body")


def is_line(item: Mapping[str, Any]) -> bool:
    """Whether an object is meant as a line of an OpenAI batch file."""
    if "prompt" in item or "messages" in item:
        # Beside a prompt of its own, `body` and `url` are data, unless they are what the API has.
        return isinstance(item.get("body"), Mapping) or str(item.get("url")).startswith("/v1/")
    return "body" in item or ("url" in item and "method" in item)


def unwrap(item: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The endpoint, and the body as a completion or chat; Refusal where they don't fit."""
    for key in item:
        if key not in _KEYS:
            raise Refusal(
                f"unknown key {shown(key)} in an OpenAI batch line: {nearest(key, _KEYS)}"
            )
    if item.get("custom_id") is None:
        raise Refusal("an OpenAI batch line needs a custom_id: give each line its own")
    if item.get("method") != "POST":
        raise Refusal(f"the method is {shown(item.get('method'))}: it must be 'POST'")
    url, body = item.get("url"), item.get("body")
    if url not in (CHAT, COMPLETIONS):
        raise Refusal(f"the url is {shown(url)}: it must be {CHAT} or {COMPLETIONS}")
    if not isinstance(body, Mapping):
        raise Refusal(f"the body is {kind(body)}: it must be an object")
    wanted, other = ("messages", "prompt") if url == CHAT else ("prompt", "messages")
    if body.get(wanted) is None or body.get(other) is not None:
        raise Refusal(f"a body for {url} needs '{wanted}' and no '{other}'")
    return str(url), _request(body)


def _request(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as a line of our own would have it."""
    for key in ("custom_id", "params"):
        if key in body:
            raise Refusal(f"unknown key '{key}' in the body of an OpenAI batch line: move it out")
    return dict(body)
