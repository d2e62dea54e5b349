"""Parameters that only a chat can have: which functions it calls, and how it is rendered. Pure."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

#: In the order of `SamplingParams`.
CHAT_PARAMS = (
    "tool_choice",
    "parallel_tool_calls",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
)

_CHOICES = ("none", "auto", "required")

#: What a template is given already, or what would change who reads its text.
_OURS = frozenset(
    {
        *("messages", "conversation", "tools", "documents", "add_generation_prompt"),
        *("continue_final_message", "chat_template", "tokenize", "padding", "truncation"),
        *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        "tokenizer_kwargs",
    }
)


def text_of(content: object) -> str | None:
    """A message's content as one text: its parts are joined by a newline; None: it has none.

    For a template that takes texts only; one that takes parts is given the stored list.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, list | tuple) and content:
        return "\n".join(str(part.get("text", "")) for part in content)
    return None


def check_tool_choice(value: str | Mapping[str, Any] | None) -> None:
    """As OpenAI writes it. Raises ValueError where it is not."""
    if value is None or (isinstance(value, str) and value in _CHOICES):
        return
    if isinstance(value, Mapping) and value.get("type") == "function":
        function = value.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            return
    raise ValueError(
        f"parameter 'tool_choice' is one of {', '.join(_CHOICES)}, or "
        f'{{"type": "function", "function": {{"name": ...}}}}, not {reprlib.repr(value)}'
    )


def chosen_function(tool_choice: str | Mapping[str, Any] | None) -> str | None:
    """The one that must be called; None: none is named."""
    return None if not isinstance(tool_choice, Mapping) else str(tool_choice["function"]["name"])


def must_call(tool_choice: str | Mapping[str, Any] | None) -> bool:
    """Whether the answer has to be a call."""
    return tool_choice == "required" or isinstance(tool_choice, Mapping)


def check_template_kwargs(given: Mapping[str, Any] | None) -> None:
    """Raises ValueError for what is not the template's to be told."""
    for name in given or {}:
        if name in _OURS:
            raise ValueError(f"chat_template_kwargs can't have '{name}': leave it out")


def check_turns(continued: bool | None, begun: bool | None) -> None:
    """Raises ValueError where the two contradict each other."""
    if continued and begun:
        raise ValueError(
            "continue_final_message goes on with the last message and add_generation_prompt "
            "begins a new one: ask for one of them"
        )


def turns(continued: bool | None, opened: bool | None, *, begun: bool) -> tuple[bool, bool]:
    """Whether the last message is continued, and whether the answer's turn is opened after it.

    As asked for; where only one is said, the other follows from it. Where neither is, an answer
    that is `begun` is continued, as transformers' pipeline does.
    """
    if continued is None and opened is None:
        return begun, not begun
    if continued is None:
        return False, bool(opened)
    return continued, not continued if opened is None else opened


def arguments_schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a function's arguments, which are an object."""
    return {"type": "object", **(tool["function"].get("parameters") or {})}
