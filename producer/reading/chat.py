"""The messages of a chat: checked, and brought into one form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from producer.reading.keys import nearest
from producer.reading.texts import Refusal, check_size, check_text, kind, shown

ROLES = ("system", "developer", "user", "assistant", "tool")

#: Text that a message may carry besides its role and content.
_EXTRAS = ("name", "tool_call_id")

_KEYS = ("role", "content", *_EXTRAS)


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
            for key, text in plain.items():
                size += check_text(text, f".{key}")
        except Refusal as refusal:
            raise Refusal(f"messages[{position}]{refusal.reason}") from None
        checked.append(plain)
    check_size(size, limit, "the chat")
    return checked


def _message(message: object) -> dict[str, str]:
    """The message in plain form; a Refusal's reason here goes on after the message's name."""
    if not isinstance(message, Mapping):
        raise Refusal(f" is {kind(message)}: it must be an object with role and content")
    role = message.get("role")
    if role not in ROLES:
        what = f"the role {shown(role)}" if "role" in message else "no role"
        raise Refusal(f" has {what}: use one of {', '.join(ROLES)}")
    plain = {"role": str(role), "content": _content(message)}
    for key, value in message.items():
        if key in ("role", "content") or value is None:
            continue
        if key not in _EXTRAS:
            raise Refusal(f": unknown key {shown(key)}: {nearest(key, _KEYS)}")
        if not isinstance(value, str):
            raise Refusal(f".{key} is {kind(value)}: it must be text")
        plain[key] = value
    return plain


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
