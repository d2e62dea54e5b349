"""What a chat template is given for a request, and where in its text the answer begins. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.chat import turns
from worker.engine.protocol import Failed, Request, ScoreRequest
from worker.engine.shared.message import Opening, callable_tools


@dataclass(frozen=True, slots=True)
class Wanted:
    """Arguments of `apply_chat_template`."""

    messages: list[dict[str, Any]]
    arguments: Mapping[str, Any]
    #: The last message is begun, and is continued.
    continued: bool

    def opening(self, text: str) -> Opening:
        """What the rendered `text` has of the answer's own turn: all that follows the messages."""
        last = str(self.messages[-1].get("content") or "").strip() if self.messages else ""
        if self.continued:
            return Opening(last, continued=True)
        return Opening(text[text.rfind(last) + len(last) :] if last else text, continued=False)


def wanted(request: Request | ScoreRequest, template: str) -> Wanted | Failed:
    """Failed where the template has no place for what the request asks of it."""
    messages = [_with_arguments(message, template) for message in request.messages or ()]
    begun = bool(messages) and messages[-1].get("role") == "assistant"
    if not isinstance(request, Request):
        return Wanted(messages, _how(*turns(None, None, begun=begun)), begun)
    params = request.params
    asked = turns(params.continue_final_message, params.add_generation_prompt, begun=begun)
    tools = callable_tools(request)
    if tools and "tools" not in template:
        return Failed(
            "bad_chat",
            "the model's chat template shows no tools: leave them out, or use a "
            "model that was trained to call them",
        )
    given = params.chat_template_kwargs or {}
    for name in given:
        if not re.search(rf"\b{re.escape(name)}\b", template):
            return Failed(
                "bad_chat",
                f"chat_template_kwargs: the model's chat template knows no '{name}': leave it out "
                "or check the spelling",
            )
    shown = [dict(tool) for tool in tools] if tools else None
    return Wanted(messages, {"tools": shown, **given, **_how(*asked)}, asked[0])


def _how(continued: bool, begun: bool) -> dict[str, bool]:
    return {"add_generation_prompt": begun, "continue_final_message": continued}


def _with_arguments(message: Mapping[str, Any], template: str) -> dict[str, Any]:
    """The message with the arguments of its calls as objects: templates write them as JSON.

    Its thinking goes by the name that the template has for it.
    """
    plain = dict(message)
    if plain.get("tool_calls"):
        plain["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _object(call["function"])}}
            for call in plain["tool_calls"]
        ]
    if "reasoning_content" in plain and "reasoning_content" not in template:
        plain["thinking"] = plain.pop("reasoning_content")
    return plain


def _object(function: Mapping[str, Any]) -> Any:
    given = function.get("arguments")
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError:
        return given
