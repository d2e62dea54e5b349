"""What a message's content consists of: text, and what Anthropic's API has between the texts.

`content` is a text, or a list of parts. A part is a text in quotes, or an object with a `type`:

    text, input_text, output_text   text
    refusal                         text, of an assistant that declined
    thinking                        reasoning, of an assistant (Anthropic, Mistral)
    tool_use                        a call of a function, by an assistant (Anthropic)
    tool_result                     what a called function returned, from a user (Anthropic)

Any other part (an image, audio, a file) is refused by its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from producer.reading.texts import Refusal, kind, shown
from producer.reading.tools import check_call


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """As OpenAI writes it."""

    call: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    call_id: str | None
    content: str | list[dict[str, str]]


Part = Text | Reasoning | Call | ToolResult

#: The key of a part's text, by its type.
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}

#: Keys of a part that say how it is cached, where it came from or who signed it, not what it says.
_DESCRIBING = frozenset(
    {"type", "cache_control", "citations", "annotations", "logprobs", "signature", "index"}
)

#: Whose message a part belongs to, where it is not anybody's.
_OWNERS = {
    "refusal": "assistant",
    "thinking": "assistant",
    "tool_use": "assistant",
    "tool_result": "user",
}


def parts_of(content: object, where: str, role: str) -> list[Part]:
    """The parts of a content that is a text or a list; Refusal that begins with `where`."""
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, list | tuple) or not content:
        what = "an empty list" if content in ([], ()) else kind(content)
        raise Refusal(f"{where} is {what}: it must be text, or a list of text parts")
    return [_part(part, f"{where}[{position}]", role) for position, part in enumerate(content)]


def stored(texts: list[Text]) -> str | list[dict[str, str]]:
    """Texts as a message's content is stored: one as text, several as OpenAI's list of parts.

    A worker renders the list as the model's template does, see worker/engine/shared/rendering.py.
    """
    if len(texts) == 1:
        return texts[0].text
    return [{"type": "text", "text": part.text} for part in texts]


def _part(part: object, where: str, role: str) -> Part:
    if isinstance(part, str):
        return Text(part)
    if not isinstance(part, Mapping):
        raise Refusal(f'{where} is {kind(part)}: it must be {{"type": "text", "text": ...}}')
    type_ = part.get("type")
    if type_ not in (*_TEXTS, *_OWNERS):
        raise Refusal(f"{where} has the type {shown(type_)}: only text parts are supported")
    owner = _OWNERS.get(type_, role)
    if owner != role:
        raise Refusal(f"{where} has the type '{type_}': only a message of the {owner} has it")
    if type_ in _TEXTS:
        key = _TEXTS[type_]
        _check_keys(part, where, key)
        return Text(_text(part.get(key), f"{where}.{key}"))
    if type_ == "thinking":
        return _reasoning(part, where)
    return _call(part, where) if type_ == "tool_use" else _tool_result(part, where)


def _reasoning(part: Mapping[str, Any], where: str) -> Reasoning:
    _check_keys(part, where, "thinking", "closed")
    thinking = part.get("thinking")
    if isinstance(thinking, list | tuple) and thinking:  # as Mistral has it
        texts = parts_of(thinking, f"{where}.thinking", "user")
        return Reasoning("\n".join(text.text for text in texts if isinstance(text, Text)))
    return Reasoning(_text(thinking, f"{where}.thinking"))


def _call(part: Mapping[str, Any], where: str) -> Call:
    _check_keys(part, where, "id", "name", "input", "caller")
    call = {
        "id": part.get("id"),
        "type": "function",
        "function": {"name": part.get("name"), "arguments": part.get("input")},
    }
    if not isinstance(part.get("name"), str) or not isinstance(part.get("input"), Mapping):
        raise Refusal(f"{where}: a tool_use has a name (text) and an input (an object)")
    return Call(check_call(call, where))


def _tool_result(part: Mapping[str, Any], where: str) -> ToolResult:
    _check_keys(part, where, "tool_use_id", "content", "is_error")
    call_id = part.get("tool_use_id")
    if call_id is not None:
        _text(call_id, f"{where}.tool_use_id")
    content = part.get("content")
    if content in (None, [], ()):
        return ToolResult(call_id, "")
    parts = parts_of(content, f"{where}.content", "tool")
    return ToolResult(call_id, stored([part for part in parts if isinstance(part, Text)]))


def _check_keys(part: Mapping[str, Any], where: str, *known: str) -> None:
    """Nothing of a part is ignored but what only describes it, and null."""
    for key, value in part.items():
        if value is not None and key not in known and key not in _DESCRIBING:
            raise Refusal(f"{where}: unknown key {shown(key)}: remove it")


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise Refusal(f"{where} is {kind(value)}: it must be text")
    return value
