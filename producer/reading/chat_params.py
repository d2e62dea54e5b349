"""Parameters that only a chat has, held against the chat that they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from db.chat import CHAT_PARAMS, arguments_schema, chosen_function, must_call
from db.exact_json import dumps
from db.structure import Structure, compiled
from producer.reading.texts import Refusal, check_text, json_text, shown

#: Without tools, these ask for nothing.
_IDLE = ("none", "auto")

_OF_TOOLS = ("tool_choice", "parallel_tool_calls")


def chat_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a batch or a line that only a chat can have, and that are given."""
    return {name: params[name] for name in CHAT_PARAMS if params.get(name) is not None}


def asking(request: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The `chat_params` that ask for something: without those of tools where there are none."""
    if request.get("tools"):
        return dict(params)
    return {name: value for name, value in params.items() if not _is_idle(name, value)}


def _is_idle(name: str, value: object) -> bool:
    """Whether a parameter asks for nothing without tools."""
    return name == "parallel_tool_calls" or (name == "tool_choice" and value in _IDLE)


def drop_idle_choice(
    request: Mapping[str, Any], params: dict[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Take away how tools are called from the line's `params` where there are none to call."""
    if request.get("tools"):
        return
    for name in _OF_TOOLS:
        if name in params and name not in defaults and _is_idle(name, params[name]):
            del params[name]


def refuse_for_prompt(params: Mapping[str, Any]) -> None:
    """Refusal where a prompt has any of these."""
    for name in params:
        raise Refusal(f"is a prompt, and parameter '{name}' is for chats: give 'messages'")


def check_chat_params(request: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Refusal where they don't fit the request; `params` as `chat_params` gave them."""
    params = asking(request, params)
    if not params:
        return
    messages = request.get("messages")
    if messages is None:
        refuse_for_prompt(params)
        return
    for name, value in params.items():
        check_text(json_text(value), f"parameter '{name}'")
    if params.get("continue_final_message") and messages[-1]["role"] != "assistant":
        raise Refusal(
            "parameter 'continue_final_message': the last message is not the assistant's: leave "
            "it out"
        )
    tools = request.get("tools")
    for name in _OF_TOOLS:
        if name in params and not tools:
            raise Refusal(f"has '{name}' and no 'tools': name the functions, or leave it out")
    if must_call(params.get("tool_choice")):
        _check_callable(tools or (), chosen_function(params["tool_choice"]))


def _check_callable(tools: Sequence[Mapping[str, Any]], name: str | None) -> None:
    names = [tool["function"]["name"] for tool in tools]
    if name is not None and name not in names:
        raise Refusal(
            f"tool_choice names the function {shown(name)}, and 'tools' has "
            f"{', '.join(map(shown, names))}: name one of these"
        )
    for place, tool in enumerate(tools):
        if name in (None, tool["function"]["name"]):
            try:
                compiled(Structure("json_schema", dumps(arguments_schema(tool)).decode()))
            except (ValueError, TypeError, AttributeError) as error:
                raise Refusal(
                    f"tools[{place}].function.parameters: the answer has to be a call, and "
                    f"{' '.join(str(error).split())}"
                ) from None
