"""Functions that a chat may call, and calls of them, as OpenAI writes both: checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from producer.reading.texts import (
    LineFaults,
    Refusal,
    check_size,
    check_text,
    json_text,
    kind,
    shown,
)

#: As OpenAI has it.
_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: Of a call in a client's answer: its place in a stream, and its arguments once more.
_OF_ANSWERS = ("index", "parsed_arguments")


def check_tools(tools: object, limit: int) -> list[dict[str, Any]]:
    """Functions that a chat may call, as OpenAI writes them; Refusal naming the bad one."""
    if not isinstance(tools, list | tuple) or not tools:
        what = "empty" if tools in ([], ()) else kind(tools)
        raise Refusal(f"'tools' is {what}: it must be a list of functions")
    faults = LineFaults()
    for position, tool in enumerate(tools):
        faults.of(_function, tool, where=f"tools[{position}]")
    faults.raise_all()
    names = [tool["function"]["name"] for tool in tools]
    for position, name in enumerate(names):
        if not _FUNCTION_NAME.fullmatch(name):
            raise Refusal(
                f"tools[{position}] has the name {shown(name)}: use 1 to 64 letters, digits, _ "
                "and -"
            )
        if name in names[:position]:
            raise Refusal(f"tools[{position}] has the name {shown(name)}, as one before it")
    size = check_text(json_text(tools), "'tools'")
    check_size(size, limit, "'tools'")
    return [dict(tool) for tool in tools]


def check_calls(calls: object, where: str) -> list[dict[str, Any]]:
    """Calls in an assistant's message; Refusal that begins with `where`."""
    if not isinstance(calls, list | tuple) or not calls:
        raise Refusal(f"{where} is {kind(calls)}: it must be a list of calls")
    return [check_call(call, f"{where}[{position}]") for position, call in enumerate(calls)]


def check_call(call: object, where: str) -> dict[str, Any]:
    """One call, without what only describes it; Refusal that begins with `where`."""
    try:
        function = _function(call)
    except Refusal as refusal:
        raise Refusal(f"{where}{refusal.reason}") from None
    if not isinstance(function.get("arguments"), str | Mapping):
        raise Refusal(f"{where}.function.arguments: it must be text or an object")
    plain = _without_descriptions(call)
    return {**plain, "function": _without_descriptions(function)}


def _without_descriptions(item: object) -> dict[str, Any]:
    plain: Mapping[str, Any] = item if isinstance(item, Mapping) else {}
    return {
        key: value for key, value in plain.items() if value is not None and key not in _OF_ANSWERS
    }


def _function(item: object) -> Mapping[str, Any]:
    """The `function` of a tool or a call."""
    plain: Mapping[str, Any] = item if isinstance(item, Mapping) else {}
    if plain.get("type", "function") != "function":
        raise Refusal(f".type is {shown(plain['type'])}: only functions are supported")
    function = plain.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Refusal(': it must be {"type": "function", "function": {"name": ..., ...}}')
    return function
