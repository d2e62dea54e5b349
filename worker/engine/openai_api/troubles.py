"""What went wrong with one try, sorted: never again, or again, and who has to wait. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from worker.engine.protocol import Failed

#: Of what an endpoint says, at most so many characters reach a message.
_LONGEST = 300
#: Nobody waits longer than that because an endpoint says so (seconds).
_LONGEST_WAIT = 3600.0

_TOO_LONG = re.compile(
    r"context_length_exceeded|maximum context length|context window|input token count",
    re.IGNORECASE,
)
#: As OpenAI says it of a model that is asked for a completion.
_CHAT_ONLY = re.compile(r"this is a chat model", re.IGNORECASE)
#: As vLLM says it, and transformers.
_NO_TEMPLATE = re.compile(r"provide a chat template|chat_template is not set", re.IGNORECASE)
#: Google answers a wrong key with 400.
_BAD_KEY = re.compile(r"api key not valid|api_key_invalid", re.IGNORECASE)
#: An account with nothing left; waiting does not fill it.
_SPENT = re.compile(r"insufficient_quota|billing_hard_limit_reached", re.IGNORECASE)
#: Google says in the body what others say in the header Retry-After.
_RETRY_DELAY = re.compile(r'"retryDelay"\s*:\s*"(\d+(?:\.\d+)?)s"')

#: Beyond these and 5xx, trying the same again is of no use.
_AGAIN = (408, 409, 425, 429)
#: The endpoint can't take more, or is away: everybody waits. Other 5xx may be one request's own.
_EVERYBODY = (429, 502, 503, 504, 529)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a try gave no reply."""

    #: What the request ends with if it is not tried again; `retriable`: it may be.
    failure: Failed
    #: Fewer at once from now on.
    overload: bool = False
    #: Nobody should ask for a while, not only this request.
    everybody: bool = False
    #: Seconds that the endpoint wants to be left alone; None: it did not say.
    wait: float | None = None
    #: Nobody answered at all.
    absent: bool = False


def of_status(status: int, headers: Mapping[str, str], body: str, now: float) -> Trouble:
    """An answer with an error status. `headers` are in lower case; `now` is unix seconds."""
    said = f"the endpoint answered {status}{_detail(body)}"
    if status in _AGAIN or status >= 500:
        if status == 429 and _SPENT.search(body):
            return Trouble(Failed("endpoint_denied", f"{said}: the account's quota is used up"))
        return Trouble(
            Failed("endpoint_unavailable", said, retriable=True),
            overload=status == 429 or status >= 500,
            everybody=status in _EVERYBODY,
            wait=retry_after(headers, body, now),
        )
    return Trouble(_never(status, said, body))


def timed_out(seconds: float) -> Trouble:
    said = f"the endpoint did not answer within {seconds:g} s"
    failure = Failed("endpoint_unavailable", said, retriable=True)
    return Trouble(failure, overload=True, everybody=True, absent=True)


def disconnected(reason: str) -> Trouble:
    said = f"the connection to the endpoint failed: {_one_line(reason)}"
    failure = Failed("endpoint_unavailable", said, retriable=True)
    return Trouble(failure, overload=True, everybody=True, absent=True)


def garbled(reason: str) -> Trouble:
    """An answer with status 200 that is none."""
    said = f"the endpoint's answer can't be read: {_one_line(reason)}"
    return Trouble(Failed("endpoint_unavailable", said, retriable=True))


def retry_after(headers: Mapping[str, str], body: str, now: float) -> float | None:
    """Seconds that the endpoint wants to be left alone (RFC 9110, 10.2.3); None: it is silent."""
    text = headers.get("retry-after", "").strip()
    seconds: float | None = None
    if milliseconds := re.fullmatch(r"\d+(\.\d+)?", headers.get("retry-after-ms", "").strip()):
        seconds = float(milliseconds[0]) / 1000
    elif re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
    elif text:
        seconds = _until(text, now)
    elif delay := _RETRY_DELAY.search(body):
        seconds = float(delay[1])
    return None if seconds is None else max(0.0, min(seconds, _LONGEST_WAIT))


def _never(status: int, said: str, body: str) -> Failed:
    if status in (401, 403) or (status == 400 and _BAD_KEY.search(body)):
        return Failed("endpoint_denied", f"{said}: it does not accept the key, or not for this")
    if status in (400, 404) and _CHAT_ONLY.search(body):
        said = f"{said}: set the engine option api to chat"
        return Failed("endpoint_not_found", said)
    if status == 404:
        return Failed("endpoint_not_found", f"{said}: it has no such model, or no such path")
    if status in (400, 413, 422) and _TOO_LONG.search(body):
        return Failed("prompt_too_long", said)
    if status in (400, 422) and _NO_TEMPLATE.search(body):
        return Failed("no_chat_template", said)
    return Failed("endpoint_refused", said)


def _until(date: str, now: float) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - now
    except ValueError:
        return None


def _detail(body: str) -> str:
    """What the endpoint says about it, in any of the shapes that are in use."""
    try:
        document = json.loads(body)
    except ValueError:
        document = body
    said = _one_line(_message(document))
    return f" ({said})" if said else ""


def _message(document: Any) -> str:
    if isinstance(document, list) and document:
        return _message(document[0])
    if isinstance(document, dict):
        for name in ("error", "message", "detail"):
            if document.get(name):
                return _message(document[name])
        return json.dumps(document)
    return document if isinstance(document, str) else json.dumps(document)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
