"""The messages of a chat: checked, and brought into one form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from producer.reading.keys import nearest
from producer.reading.texts import Refusal, check_size, check_text, kind, shown

ROLES = ("system", "developer", "user", "assistant", "tool")

#: Text that a message may carry besides its role and content.
_EXTRAS = ("name", "tool_call_id", "reasoning_content")

#: As OpenAI has it.
_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_KEYS = ("role", "content", "tool_calls", *_EXTRAS)


def check_messages(messages: object, limit: int) -> list[dict[str, Any]]:
    """The messages, each with `role` and `content` as text; Refusal naming the bad one.

    `limit` bounds the texts of all messages together, in bytes of UTF-8.
    """
    if not isinstance(messages, list | tuple):
        raise Refusal(f"'messages' is {kind(messages)}: it must be a list of messages")
    if not messages:
        raise Refusal("'messages' is empty: give at least one message")
    checked = []
    size = 0
    for position, message in enumerate(messages):
        try:
            plain = _message(message)
            for key, value in plain.items():
                size += check_text(value if isinstance(value, str) else _json(value), f".{key}")
        except Refusal as refusal:
            raise Refusal(f"messages[{position}]{refusal.reason}") from None
        checked.append(plain)
    check_size(size, limit, "the chat")
    return checked


def check_tools(tools: object, limit: int) -> list[dict[str, Any]]:
    """Functions that a chat may call, as OpenAI writes them; Refusal naming the bad one."""
    if not isinstance(tools, list | tuple) or not tools:
        what = "empty" if tools in ([], ()) else kind(tools)
        raise Refusal(f"'tools' is {what}: it must be a list of functions")
    for position, tool in enumerate(tools):
        try:
            _function(tool)
        except Refusal as refusal:
            raise Refusal(f"tools[{position}]{refusal.reason}") from None
    names = [tool["function"]["name"] for tool in tools]
    for position, name in enumerate(names):
        if not _FUNCTION_NAME.fullmatch(name):
            raise Refusal(
                f"tools[{position}] has the name {shown(name)}: use 1 to 64 letters, digits, _ "
                "and -"
            )
        if name in names[:position]:
            raise Refusal(f"tools[{position}] has the name {shown(name)}, as one before it")
    size = check_text(_json(tools), "'tools'")
    check_size(size, limit, "'tools'")
    return [dict(tool) for tool in tools]


def _message(message: object) -> dict[str, Any]:
    """The message in plain form; a Refusal's reason here goes on after the message's name."""
    if not isinstance(message, Mapping):
        raise Refusal(f" is {kind(message)}: it must be an object with role and content")
    role = message.get("role")
    if role not in ROLES:
        what = f"the role {shown(role)}" if "role" in message else "no role"
        raise Refusal(f" has {what}: use one of {', '.join(ROLES)}")
    plain: dict[str, Any] = {"role": str(role)}
    if message.get("tool_calls") is not None:
        plain["tool_calls"] = _tool_calls(message)
    if "tool_calls" not in plain or message.get("content") is not None:
        plain["content"] = _content(message)
    for key, value in message.items():
        if key in ("role", "content", "tool_calls") or value is None:
            continue
        if key not in _EXTRAS:
            raise Refusal(f": unknown key {shown(key)}: {nearest(key, _KEYS)}")
        if not isinstance(value, str):
            raise Refusal(f".{key} is {kind(value)}: it must be text")
        if key == "reasoning_content" and role != "assistant":
            raise Refusal(".reasoning_content: only an assistant's message has it")
        plain[key] = value
    return plain


def _tool_calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an assistant's message asked to be called."""
    calls = message["tool_calls"]
    if message.get("role") != "assistant":
        raise Refusal(".tool_calls: only an assistant's message has them")
    if not isinstance(calls, list | tuple) or not calls:
        raise Refusal(f".tool_calls is {kind(calls)}: it must be a list of calls")
    for place, call in enumerate(calls):
        try:
            function = _function(call)
        except Refusal as refusal:
            raise Refusal(f".tool_calls[{place}]{refusal.reason}") from None
        if not isinstance(function.get("arguments"), str | Mapping):
            raise Refusal(f".tool_calls[{place}].function.arguments: it must be text or an object")
    return [dict(call) for call in calls]


def _function(item: object) -> Mapping[str, Any]:
    """The `function` of a tool or a call."""
    plain: Mapping[str, Any] = item if isinstance(item, Mapping) else {}
    function = plain.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Refusal(': it must be {"type": "function", "function": {"name": ..., ...}}')
    if plain.get("type", "function") != "function":
        raise Refusal(f".type is {shown(plain['type'])}: only functions are supported")
    return function


def _content(message: Mapping[str, Any]) -> str:
    """The text of a message, whose content is a string or a list of text parts."""
    content = message.get("content")
    if isinstance(content, list | tuple) and content:
        return "".join(_part(part, f".content[{place}]") for place, part in enumerate(content))
    if not isinstance(content, str):
        what = kind(content) if "content" in message else "missing"
        raise Refusal(f".content is {what}: it must be text")
    return content


def _part(part: object, where: str) -> str:
    if not isinstance(part, Mapping):
        raise Refusal(f'{where} is {kind(part)}: it must be {{"type": "text", "text": ...}}')
    if part.get("type") != "text":
        raise Refusal(
            f"{where} has the type {shown(part.get('type'))}: only text parts are supported"
        )
    text = part.get("text")
    if not isinstance(text, str):
        raise Refusal(f"{where}.text is {kind(text)}: it must be text")
    return text


def _json(value: object) -> str:
    """As it is stored, but for NUL, which JSON would hide."""
    return json.dumps(value, ensure_ascii=False).replace("\\u0000", "\0")
