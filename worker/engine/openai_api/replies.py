"""From the body of an answer to samples. Pure, and believes nothing that it has not checked."""

from __future__ import annotations

import builtins
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.engine.protocol import Failed, Request, Sample, TokenLogprob, TopLogprob
from worker.engine.stopping import find_stop

#: The surface has no token ids.
NO_ID = -1

#: Reasons to end, in the words of servers that have their own.
_REASONS = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
_FILTERED = "content_filter"


class Garbled(Exception):
    """The body is no answer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One text as it came."""

    text: str
    #: `stop`, `length`, `tool_calls` or `content_filter`.
    finish_reason: str
    logprobs: tuple[TokenLogprob, ...] | None
    reasoning: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's choices, in order, at least one; tokens are 0 where it does not count them."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    #: Of all choices together.
    completion_tokens: int


def read(body: str, alternatives: int) -> Reply:
    """`alternatives` per token are kept. Raises Garbled."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Garbled(f"it is no JSON: {body[:80]!r}") from None
    found = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(found, list) or not found:
        raise Garbled(f"it has no choices: {body[:200]!r}")
    if not all(isinstance(one, dict) for one in found):
        raise Garbled("a choice is no object")
    ordered = sorted(found, key=lambda one: _count(one.get("index")))
    usage = document.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        choices=tuple(_choice(one, alternatives) for one in ordered),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def model_ids(body: str) -> list[str]:
    """The names in an answer of GET /models; none where it is something else."""
    try:
        listed = json.loads(body)["data"]
        return [str(one["id"]) for one in listed]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def samples(request: Request, replies: Sequence[Reply]) -> tuple[Sample, ...] | Failed:
    """What the request gets of its replies, which have the samples that it wants, or more."""
    params = request.params
    limit = params.token_limit(0, None)
    made: list[Sample] = []
    for reply in replies:
        for choice, tokens in zip(reply.choices, _shares(reply, limit), strict=True):
            if choice.finish_reason == _FILTERED:
                return Failed(
                    "content_filter", "the endpoint's filter withheld the text, or a part of it"
                )
            if params.wants_logprobs and choice.logprobs is None:
                return Failed(
                    "unsupported_parameter",
                    "the endpoint sent no log-probabilities: leave logprobs out",
                )
            made.append(_sample(request, len(made), choice, tokens))
    return tuple(made[: params.n])


def _sample(request: Request, index: int, choice: Choice, tokens: int) -> Sample:
    params = request.params
    text, reason = choice.text, choice.finish_reason
    # An endpoint may take fewer stop strings than were given, or leave them in.
    stop = find_stop(text, params.stop)
    if stop is not None:
        text, reason = text[: stop[0]], "stop"
    return Sample(
        index=index,
        text=(request.prompt or "") + text if params.echo else text,
        finish_reason=reason,
        completion_tokens=tokens,
        logprobs=choice.logprobs if params.wants_logprobs else None,
        reasoning=choice.reasoning,
        tool_calls=choice.tool_calls,
    )


def _shares(reply: Reply, limit: int) -> list[int]:
    """The reply's generated tokens per choice: it tells their sum only.

    Counted where there are log-probabilities. Else a text that reached the limit has so many,
    and the others share the rest by their lengths; the sum is the true one.
    """
    choices, total = reply.choices, reply.completion_tokens
    if len(choices) == 1:
        return [total or len(choices[0].logprobs or ())]
    if all(choice.logprobs is not None for choice in choices):
        return [len(choice.logprobs or ()) for choice in choices]
    shares = [limit if choice.finish_reason == "length" else 0 for choice in choices]
    others = [at for at, share in enumerate(shares) if not share]
    rest = total - sum(shares)
    if rest < 0 or (rest and not others):  # they ended at some other limit
        others, rest = list(range(len(choices))), total
    weights = [len(choices[at].text) + len(choices[at].reasoning or "") + 1 for at in others]
    for at, share in zip(others, _apportioned(rest, weights), strict=True):
        shares[at] = share
    return shares


def _apportioned(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in whole shares (largest remainder)."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [math.floor(one) for one in exact]
    by_remainder = sorted(range(len(exact)), key=lambda at: shares[at] - exact[at])
    for at in by_remainder[: total - sum(shares)]:
        shares[at] += 1
    return shares


def _choice(found: Mapping[str, Any], alternatives: int) -> Choice:
    message = found.get("message")
    reasoning, calls = None, None
    if isinstance(message, dict):
        text = message.get("content") or message.get("refusal") or ""
        reasoning, calls = _reasoning(message), _tool_calls(message.get("tool_calls"))
    else:
        text = found.get("text")
    if not isinstance(text, str):
        raise Garbled("a choice has no text")
    reason = found.get("finish_reason")
    if isinstance(reason, str) and reason.startswith(_FILTERED):
        reason = _FILTERED
    elif not isinstance(reason, str) or reason not in _REASONS:
        raise Garbled(f"finish_reason is {reason!r}")
    else:
        reason = _REASONS[reason]
    if calls and reason == "stop":  # a function that was named, or a server's own ways
        reason = "tool_calls"
    elif reason == "tool_calls" and not calls:
        raise Garbled("finish_reason is 'tool_calls' and there are none")
    try:
        logprobs = _logprobs(found.get("logprobs"), alternatives)
        return Choice(text, reason, logprobs, reasoning, calls)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Garbled("its log-probabilities have an unknown shape") from None


def _reasoning(message: Mapping[str, Any]) -> str | None:
    """What the model thought: DeepSeek, SGLang and llama.cpp name it one way, vLLM the other."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str) and message[name]:
            return str(message[name])
    return None


def _tool_calls(found: Any) -> tuple[Mapping[str, Any], ...] | None:
    """Calls in OpenAI's form and no other. Raises Garbled."""
    if not found:
        return None
    if not isinstance(found, list):
        raise Garbled("its tool_calls are no list")
    return tuple(_tool_call(one) for one in found)


def _tool_call(one: Any) -> Mapping[str, Any]:
    function = one.get("function") if isinstance(one, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Garbled("a call names no function")
    arguments = function.get("arguments") or "{}"
    if not isinstance(arguments, str):  # OpenAI's are text, some servers' are not
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {
        "id": str(one.get("id") or ""),
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _logprobs(found: Any, alternatives: int) -> tuple[TokenLogprob, ...] | None:
    """Chat and completions have a shape each. Raises KeyError, TypeError, ValueError."""
    if not found:
        return None
    if found.get("content") is not None:
        return tuple(_chat_token(one, alternatives) for one in found["content"])
    if found.get("tokens") is None:
        return None
    tokens, values = found["tokens"], found["token_logprobs"]
    tops = found.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprob(
            str(token), NO_ID, float(value), _best(_named(top or {}, token, value), alternatives)
        )
        for token, value, top in zip(tokens, values, tops, strict=True)
    )


def _named(top: Mapping[str, float], token: str, value: float) -> list[TopLogprob]:
    """The alternatives, named by their texts: of two with one text only one was told.

    So a likelier one of the chosen token's text is the chosen token.
    """
    if token in top and top[token] < value:
        top = {**top, token: value}
    return [TopLogprob(str(name), NO_ID, float(logprob)) for name, logprob in top.items()]


def _chat_token(one: Mapping[str, Any], alternatives: int) -> TokenLogprob:
    tops = [_top(**top) for top in one.get("top_logprobs") or ()]
    chosen = _top(**one)
    top = _best(tops, alternatives)
    return TokenLogprob(chosen.token, NO_ID, chosen.logprob, top, chosen.bytes)


def _top(token: Any, logprob: Any, bytes: Any = None, **_: Any) -> TopLogprob:  # noqa: A002
    """With its bytes, where the token is not whole characters."""
    text = str(token)
    data = None if bytes is None else builtins.bytes(bytes)
    return TopLogprob(text, NO_ID, float(logprob), None if data == text.encode() else data)


def _best(tops: Iterable[TopLogprob], alternatives: int) -> tuple[TopLogprob, ...]:
    return tuple(sorted(tops, key=lambda top: -top.logprob)[:alternatives])


def _count(value: Any) -> int:
    """A whole number of 0 or more; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
