"""Lines of an OpenAI batch file: `{"custom_id", "method", "url", "body"}`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from db.modes import Mode
from producer.reading.keys import nearest
from producer.reading.openai_responses import chat_of
from producer.reading.texts import Refusal, kind, shown

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"

#: The key of a body that is asked about, and the one that belongs to another endpoint.
_NEEDED = {
    CHAT: ("messages", "prompt"),
    COMPLETIONS: ("prompt", "messages"),
    EMBEDDINGS: ("input", "messages"),
    RESPONSES: ("input", "messages"),
}

#: What a mode takes.
_ENDPOINTS = {
    Mode.GENERATE: (CHAT, COMPLETIONS, RESPONSES),
    Mode.SCORE: (),
    Mode.EMBED: (EMBEDDINGS,),
}

_KEYS = ("custom_id", "method", "url", "body")


def is_line(item: Mapping[str, Any]) -> bool:
    """Whether an object is meant as a line of an OpenAI batch file."""
    if "prompt" in item or "messages" in item:
        # Beside a prompt of its own, `body` and `url` are data, unless they are what the API has.
        return isinstance(item.get("body"), Mapping) or str(item.get("url")).startswith("/v1/")
    return "body" in item or ("url" in item and "method" in item)


def mode_of(item: object, columns: Collection[str] = ()) -> Mode:
    """The mode that a request asks for by its endpoint; of any other, `generate`.

    `columns` are keys that are data, whatever they are called.
    """
    if isinstance(item, Mapping):
        request = {key: value for key, value in item.items() if key not in columns}
        if is_line(request):
            for mode, endpoints in _ENDPOINTS.items():
                if request.get("url") in endpoints:
                    return mode
    return Mode.GENERATE


def unwrap(item: Mapping[str, Any], mode: Mode) -> tuple[str, Mapping[str, Any]]:
    """The endpoint, and the body as a line of our own has it; Refusal where they don't fit."""
    if not _ENDPOINTS[mode]:
        raise Refusal(
            f"is a line of an OpenAI batch file, which mode {mode} does not take: write "
            '{"prompt": ...}'
        )
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
    _check_url(url, mode)
    if not isinstance(body, Mapping):
        raise Refusal(f"the body is {kind(body)}: it must be an object")
    wanted, other = _NEEDED[str(url)]
    if body.get(wanted) is None or body.get(other) is not None:
        raise Refusal(f"a body for {url} needs '{wanted}' and no '{other}'")
    return str(url), _request(body, str(url))


def _check_url(url: object, mode: Mode) -> None:
    """Refusal, with what to do, for an endpoint that the batch's mode does not take."""
    if url in _ENDPOINTS[mode]:
        return
    for other, endpoints in _ENDPOINTS.items():
        if url in endpoints:
            raise Refusal(
                f"the url is {shown(url)}, and this batch is of mode {mode}: submit such lines in "
                f"a file of their own, with --mode {other}"
            )
    raise Refusal(f"the url is {shown(url)}: it must be {' or '.join(_ENDPOINTS[mode])}")


def _request(body: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The body as a line of our own would have it."""
    for key in ("custom_id", "params"):
        if key in body:
            raise Refusal(f"unknown key '{key}' in the body of an OpenAI batch line: move it out")
    if url == RESPONSES:
        return chat_of(body)
    request = dict(body)
    if url == EMBEDDINGS:
        if "prompt" in request:
            raise Refusal("the body has 'input' and 'prompt': keep 'input'")
        request["prompt"] = request.pop("input")
    return request
