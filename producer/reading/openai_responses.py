"""Bodies for OpenAI's `/v1/responses` as chats: their plain subset, in which nothing is stored.

    {"instructions": "…", "input": "…" or [messages], "max_output_tokens": 8}

What has no counterpart in a chat (built-in tools, stored conversations, files) is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from db.foreign_names import is_neutral
from producer.reading.texts import LineFaults, Refusal, kind, shown

#: The same in a chat.
_SAME = ("model", "temperature", "top_p", "parallel_tool_calls", "stream", "service_tier")

#: What becomes another key of a chat.
_CHANGED = ("instructions", "input", "max_output_tokens", "text", "tools", "tool_choice")

#: Values that change nothing, besides null.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "store": (True, False),
    "background": (False,),
    "truncation": ("disabled",),
    "include": ([],),
    "top_logprobs": (0,),
}

_MESSAGE = ("type", "role", "content", "id", "status")


def chat_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat that asks for the same. Raises Refusal."""
    faults = LineFaults()
    given = {key: value for key, value in body.items() if value is not None}
    for key, value in given.items():
        if key not in (*_SAME, *_CHANGED) and not _changes_nothing(key, value):
            faults.add(f"'{key}' is {shown(value)}: not supported of /v1/responses, remove it")
    chat = {key: given[key] for key in _SAME if key in given}
    chat["messages"] = faults.of(_messages, given.get("instructions"), given["input"])
    if "max_output_tokens" in given:
        chat["max_tokens"] = given["max_output_tokens"]
    if "text" in given:
        chat["response_format"] = faults.of(_response_format, given["text"])
    if given.get("tools"):
        chat["tools"] = faults.of(_tools, given["tools"])
    if "tool_choice" in given:
        chat["tool_choice"] = _tool_choice(given["tool_choice"])
    faults.raise_all()
    return chat


def _changes_nothing(key: str, value: object) -> bool:
    if key in _NEUTRAL:
        return any(type(value) is type(neutral) and value == neutral for neutral in _NEUTRAL[key])
    return is_neutral(key, value)


def _messages(instructions: object, given: object) -> list[dict[str, Any]]:
    if instructions is not None and not isinstance(instructions, str):
        raise Refusal(f"'instructions' is {kind(instructions)}: it must be text")
    messages = [] if not instructions else [{"role": "system", "content": instructions}]
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list | tuple):
        raise Refusal(f"'input' is {kind(given)}: it must be text, or a list of messages")
    if not given:
        raise Refusal("'input' is empty: give at least one message")
    faults = LineFaults()
    for position, item in enumerate(given):
        messages.append(faults.of(_message, item, where=f"input[{position}]") or {})
    faults.raise_all()
    return messages


def _message(item: object) -> dict[str, Any]:
    """Its content is the one of a chat, whose parts may be called `input_text` there too."""
    if not isinstance(item, Mapping):
        raise Refusal(f" is {kind(item)}: it must be a message")
    if item.get("type", "message") != "message":
        raise Refusal(f".type is {shown(item['type'])}: only messages are supported")
    for key, value in item.items():
        if key not in _MESSAGE and value is not None:
            raise Refusal(f" has the key {shown(key)}: a message has role and content")
    return {key: item[key] for key in ("role", "content") if key in item}


def _response_format(text: object) -> dict[str, Any] | None:
    """Of `text.format`, whose JSON Schema stands beside its type."""
    if not isinstance(text, Mapping):
        raise Refusal(f"'text' is {kind(text)}: it must be an object")
    for key, value in text.items():
        if key != "format" and not is_neutral(key, value):
            raise Refusal(f"text.{key} is {shown(value)}: not supported, remove it")
    format_ = text.get("format")
    if format_ is None:
        return None
    if not isinstance(format_, Mapping):
        raise Refusal(f"text.format is {kind(format_)}: it must be an object")
    if format_.get("type") != "json_schema":
        return dict(format_)
    schema = {key: value for key, value in format_.items() if key != "type"}
    return {"type": "json_schema", "json_schema": schema}


def _tools(tools: object) -> list[dict[str, Any]]:
    """Functions, which stand under a key of their own in a chat."""
    if not isinstance(tools, list | tuple):
        raise Refusal(f"'tools' is {kind(tools)}: it must be a list of functions")
    faults = LineFaults()
    functions = [
        faults.of(_function, tool, where=f"tools[{position}]") or {}
        for position, tool in enumerate(tools)
    ]
    faults.raise_all()
    return functions


def _function(tool: object) -> dict[str, Any]:
    if not isinstance(tool, Mapping):
        raise Refusal(f" is {kind(tool)}: it must be a function")
    if tool.get("type") != "function":
        raise Refusal(f".type is {shown(tool.get('type'))}: only functions are supported")
    function = {key: value for key, value in tool.items() if key != "type" and value is not None}
    return {"type": "function", "function": function}


def _tool_choice(choice: object) -> object:
    if isinstance(choice, Mapping) and choice.get("type") == "function" and "name" in choice:
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice
