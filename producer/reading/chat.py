"""The messages of a chat: checked, and brought into one form.

An answer of an API comes back as history, in whatever form its client wrote it: OpenAI's
`model_dump()` with its nulls and empty lists, reasoning under three names, Anthropic's blocks. All
become OpenAI's messages with what a chat template can render; what it could not is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby, pairwise
from typing import Any

from producer.reading.content import Call, Reasoning, Text, ToolResult, parts_of, stored
from producer.reading.keys import nearest
from producer.reading.texts import (
    LineFaults,
    Refusal,
    check_size,
    check_text,
    json_text,
    kind,
    shown,
)
from producer.reading.tools import check_calls

ROLES = ("system", "developer", "user", "assistant", "tool")

#: Text that a message may carry besides its role and content.
_EXTRAS = ("name", "tool_call_id", "reasoning_content")

#: Other names of an assistant's reasoning: vLLM's and OpenRouter's, Ollama's.
_REASONINGS = ("reasoning_content", "reasoning", "thinking")

#: The reasoning once more, in parts.
_REASONING_PARTS = ("reasoning_details", "thinking_blocks")

_KEYS = ("role", "content", "tool_calls", *_EXTRAS)

#: What an assistant's message says of itself and not to its reader: it is left out.
_DESCRIBING = frozenset(
    {
        *("id", "type", "model", "status", "stop_reason", "stop_sequence", "stop_details", "usage"),
        *("annotations", "citations", "logprobs", "finish_reason", "parsed", "container", "index"),
    }
)


def check_messages(messages: object, limit: int) -> list[dict[str, Any]]:
    """The messages in OpenAI's form; Refusal naming the bad one.

    Each has a `role` and, unless it only calls functions, a `content`: a text, or several as a list
    of `{"type": "text", "text": …}`. `limit` bounds the texts of all messages together, in bytes of
    UTF-8.
    """
    if not isinstance(messages, list | tuple):
        raise Refusal(f"'messages' is {kind(messages)}: it must be a list of messages")
    if not messages:
        raise Refusal("'messages' is empty: give at least one message")
    checked: list[dict[str, Any]] = []
    size = 0
    faults = LineFaults()
    for position, message in enumerate(messages):
        plain, bytes_ = faults.of(_sized, message, where=f"messages[{position}]") or ([], 0)
        checked += plain
        size += bytes_
    faults.raise_all()
    check_size(size, limit, "the chat")
    return checked


def _sized(message: object) -> tuple[list[dict[str, Any]], int]:
    """The messages that `message` stands for, and the bytes of their texts."""
    plain = _messages(message)
    return plain, sum(_size(key, value) for one in plain for key, value in one.items())


def _size(key: str, value: Any) -> int:
    return check_text(value if isinstance(value, str) else json_text(value), f".{key}")


def _messages(message: object) -> list[dict[str, Any]]:
    """The message in plain form; Anthropic's tool results become messages of their own.

    A Refusal's reason here goes on after the message's name.
    """
    if not isinstance(message, Mapping):
        raise Refusal(f" is {kind(message)}: it must be an object with role and content")
    role = message.get("role")
    if role == "function":  # of OpenAI's older API
        role, message = "tool", {**message, "role": "tool"}
    if role not in ROLES:
        what = f"the role {shown(role)}" if "role" in message else "no role"
        raise Refusal(f" has {what}: use one of {', '.join(ROLES)}")
    if role == "assistant":
        return [_assistant(message)]
    for key in ("tool_calls", *_REASONINGS):
        if message.get(key) not in (None, []):
            raise Refusal(f".{key}: only an assistant's message has it")
    extras = _extras(message, ("content", "tool_calls", "cache_control"))
    if message.get("content") is None:
        raise Refusal(f".content is {_missing(message)}: it must be text")
    parts = parts_of(message["content"], ".content", role)
    plain: list[dict[str, Any]] = []
    for is_result, group in groupby(parts, key=lambda part: isinstance(part, ToolResult)):
        if is_result:
            plain += [_tool_message(part) for part in group if isinstance(part, ToolResult)]
        else:
            texts = [part for part in group if isinstance(part, Text)]
            plain.append({"role": role, "content": stored(texts), **extras})
    return plain


def _tool_message(result: ToolResult) -> dict[str, Any]:
    named = {} if result.call_id is None else {"tool_call_id": result.call_id}
    return {"role": "tool", "content": result.content, **named}


def _assistant(message: Mapping[str, Any]) -> dict[str, Any]:
    """What an assistant said, thought and called."""
    refused, content = message.get("refusal"), message.get("content")
    if content is None and refused:
        content, refused = refused, None
    if refused:
        raise Refusal(".refusal: the message has a content as well: keep one")
    parts = [] if content in (None, [], ()) else parts_of(content, ".content", "assistant")
    calls = _calls(message) + [part.call for part in parts if isinstance(part, Call)]
    texts = [part for part in parts if isinstance(part, Text)]
    _check_order(parts)
    if not calls and not texts:
        raise Refusal(f".content is {_missing(message)}: it must be text")
    plain: dict[str, Any] = {"role": "assistant"}
    if calls:
        plain["tool_calls"] = calls
    if texts:
        plain["content"] = stored(texts)
    thought = _reasoning(message, [part.text for part in parts if isinstance(part, Reasoning)])
    if thought:
        plain["reasoning_content"] = thought
    handled = {"content", "refusal", "tool_calls", "function_call", *_REASONINGS}
    if thought:
        handled |= {*_REASONING_PARTS}
    return plain | _extras(message, (*handled, *_DESCRIBING, "cache_control"))


def _extras(message: Mapping[str, Any], handled: tuple[str, ...]) -> dict[str, Any]:
    """Its other keys: texts that a template may show. Null, and what is empty, is not given."""
    extras: dict[str, Any] = {}
    for key, value in message.items():
        if key == "role" or key in handled or value is None:
            continue
        if key not in _EXTRAS:
            if isinstance(value, list | dict) and not value:
                continue
            raise Refusal(f": unknown key {shown(key)}: {nearest(key, _KEYS)}")
        if not isinstance(value, str):
            raise Refusal(f".{key} is {kind(value)}: it must be text")
        extras[key] = value
    return extras


def _calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What it asked to be called; OpenAI's older API has one call, without an id."""
    older = message.get("function_call")
    calls = message.get("tool_calls")
    if older is None:
        return [] if calls in (None, [], ()) else check_calls(calls, ".tool_calls")
    if calls:
        raise Refusal(".function_call: the message has tool_calls as well: keep these")
    return check_calls([{"type": "function", "function": older}], ".function_call")


def _reasoning(message: Mapping[str, Any], thoughts: list[str]) -> str | None:
    """What it thought, under whichever name; None: nothing."""
    given = {key: message[key] for key in _REASONINGS if message.get(key)}
    for key, value in given.items():
        if not isinstance(value, str):
            raise Refusal(f".{key} is {kind(value)}: it must be text")
    texts = list(dict.fromkeys([*given.values(), *(["\n".join(thoughts)] if thoughts else [])]))
    if len(texts) > 1:
        raise Refusal(": its reasoning is given twice, and not the same: keep one")
    return texts[0] if texts else None


def _check_order(parts: list[Any]) -> None:
    """A template renders what was thought, then what was said, then what was called."""
    ranks = [(Reasoning, Text, Call).index(type(part)) for part in parts]
    for position, (before, after) in enumerate(pairwise(ranks), start=1):
        if before > after:
            raise Refusal(
                f".content[{position}]: a message has thinking, then text, then tool_use: begin a "
                "message of its own here"
            )


def _missing(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if "content" not in message:
        return "missing"
    return "an empty list" if content in ([], ()) else kind(content)
