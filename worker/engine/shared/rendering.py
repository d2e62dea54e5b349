"""Chats rendered with a model's own template, and where in the text the answer begins.

Nothing is found by looking for what a user wrote. Where the answer begins is read from two
renderings that differ in the generation prompt, or in a sentinel behind the last message. Whether
the template renders all that it is given is tried on the chat's skeleton, once for all chats of
one shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from db.chat import turns
from worker.engine.protocol import Failed, Request, ScoreRequest
from worker.engine.shared import omissions
from worker.engine.shared.chat_template import Chat, ChatTemplate, TemplateRefusal, variables_of
from worker.engine.shared.forms import Plan, plan
from worker.engine.shared.message import Opening, callable_tools
from worker.engine.shared.sentinels import sentinels
from worker.engine.shared.skeleton import Leaf, Message, Skeleton, Tool, skeleton

#: Shapes of chats that are remembered, and the characters of one at most.
_SHAPES = 256
_LARGEST_SHAPE = 50_000


@dataclass(frozen=True, slots=True)
class Rendered:
    """A chat as text."""

    text: str
    opening: Opening


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a plan depends on: chats whose shapes are equal are given to a template alike."""

    key: tuple[str, str, str, bool]
    skeleton: Skeleton = field(compare=False)
    #: Everything else that the template is given.
    chat: Chat = field(compare=False)


class Renderer:
    """Renders the chats of requests with one tokenizer's template."""

    def __init__(self, template: ChatTemplate, *, reasons: bool, opening_matters: bool) -> None:
        """`reasons`: the model marks its reasoning, so its template may leave out that of earlier
        turns. `opening_matters`: what a prompt has of the answer's turn decides how it is read.
        """
        self._template = template
        self._reasons = reasons
        self._opening_matters = opening_matters
        self._plan = lru_cache(maxsize=_SHAPES)(self._plan_of)

    def render(self, request: Request | ScoreRequest) -> Rendered | Failed:
        """Failed for a chat that the template refuses, or does not render all of."""
        tools, variables = _extras(request)
        source = self._template.source(tools=bool(tools))
        if source is None:
            return Failed(
                "no_chat_template",
                "the model's tokenizer has no chat template, so it takes no messages: "
                "give a prompt, or use an instruction-tuned model",
            )
        continued, generation_prompt = _turns(request)
        chat = Chat(request.messages or (), tools or None, variables, generation_prompt)
        try:
            refusal = _unknown_variable(variables, source) or _nothing_to_continue(chat, continued)
            return refusal or self._rendered(chat, source, request.clock, continued=continued)
        except TemplateRefusal as error:
            return Failed("bad_chat", f"the chat template refuses the messages: {error}")

    def _rendered(
        self, chat: Chat, source: str, clock: float | None, *, continued: bool
    ) -> Rendered | Failed:
        planned = self._planned(chat, source)
        if planned.omitted:
            return omissions.failure(planned.omitted)
        given = replace(chat, messages=planned.form.of(chat.messages))
        text = self._template.render(given, clock)
        if planned.frame is None and (omitted := self._omitted(chat, source)):
            return omissions.failure(omitted)
        frame = planned.frame or text
        if continued:
            begun = _last_text(given.messages) or ""
            text = self._without_end(given, source, clock, text)
            return Rendered(text, Opening(begun, continued=True, frame=frame))
        opening = self._opening(given, source, clock, text) if self._opening_matters else ""
        return Rendered(text, Opening(opening, continued=False, frame=frame))

    def _planned(self, chat: Chat, source: str) -> Plan:
        """How chats of this one's shape are given to the template."""
        variables = json.dumps(chat.variables, ensure_ascii=False, default=str)
        built = skeleton(
            chat.messages,
            chat.tools,
            source,
            variables,
            reasoning_of_earlier_turns=self._reasons,
        )
        shape = _Shape(
            (built.key, variables, source, chat.generation_prompt),
            built,
            replace(chat, messages=(), tools=None),
        )
        size = len(built.key) + len(variables)
        return self._plan(shape) if size <= _LARGEST_SHAPE else self._plan_of(shape)

    def _plan_of(self, shape: _Shape) -> Plan:
        def render(messages: Sequence[Message], tools: Sequence[Tool] | None) -> str:
            # Of the date, no plan depends.
            return self._template.render(replace(shape.chat, messages=messages, tools=tools), 0.0)

        return plan(shape.skeleton, render)

    def _omitted(self, chat: Chat, source: str) -> Sequence[Leaf]:
        """What a template does not render that is particular about texts, in this very chat."""
        built = skeleton(
            chat.messages,
            chat.tools,
            source,
            json.dumps(chat.variables, default=str),
            reasoning_of_earlier_turns=self._reasons,
            texts=True,
        )
        key = (built.key, "", source, chat.generation_prompt)
        return self._plan_of(_Shape(key, built, replace(chat, messages=(), tools=None))).omitted

    def _opening(self, chat: Chat, source: str, clock: float | None, text: str) -> str:
        """What follows the messages in the rendered `text`."""
        if chat.generation_prompt:
            messages = self._template.render(replace(chat, generation_prompt=False), clock)
            if text != messages and text.startswith(messages):
                return text[len(messages) :]
        parted = self._parted(chat, source, clock)
        if parted is None or not text.endswith(parted[1]):
            return ""
        return parted[1]

    def _without_end(self, chat: Chat, source: str, clock: float | None, text: str) -> str:
        """The rendered `text` up to the end of the last message's content."""
        parted = self._parted(chat, source, clock)
        if parted is None:
            raise TemplateRefusal("it leaves out the content that is to be continued")
        before, after = parted
        begun = text.removesuffix(after)
        # A template may trim the content, of which `before` has all.
        return begun if text.endswith(after) and begun.rstrip() == before.rstrip() else before

    def _parted(self, chat: Chat, source: str, clock: float | None) -> tuple[str, str] | None:
        """What is rendered before and after the end of the last message's content."""
        given = json.dumps([chat.messages, chat.tools, chat.variables], ensure_ascii=False)
        sentinel = next(sentinels(source, given))
        marked = [*chat.messages[:-1], _extended(chat.messages[-1], sentinel)]
        text = self._template.render(replace(chat, messages=marked), clock)
        before, found, after = text.rpartition(sentinel)
        return (before, after) if found else None


def _extras(
    request: Request | ScoreRequest,
) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]:
    """Its tools, and further variables for the template."""
    if not isinstance(request, Request):
        return (), {}
    return callable_tools(request), request.params.chat_template_kwargs or {}


def _turns(request: Request | ScoreRequest) -> tuple[bool, bool]:
    """Whether the last message is continued, and whether the answer's turn is opened after it."""
    begun = bool(request.messages) and (request.messages or ())[-1].get("role") == "assistant"
    if not isinstance(request, Request):
        return turns(None, None, begun=begun)
    params = request.params
    return turns(params.continue_final_message, params.add_generation_prompt, begun=begun)


def _unknown_variable(variables: Mapping[str, Any], source: str) -> Failed | None:
    for name in variables:
        if name not in variables_of(source):
            return Failed(
                "bad_chat",
                f"chat_template_kwargs: the model's chat template reads no variable '{name}': "
                "leave it out or check the spelling",
            )
    return None


def _nothing_to_continue(chat: Chat, continued: bool) -> Failed | None:
    if not continued or _last_text(chat.messages) is not None:
        return None
    return Failed(
        "bad_chat",
        "the last message is the assistant's and has no content to continue: give it one, or set "
        "add_generation_prompt to true",
    )


def _last_text(messages: Sequence[Message]) -> str | None:
    """The last message's content, or the last part of it; None: it has none."""
    content = messages[-1].get("content") if messages else None
    if isinstance(content, list | tuple) and content:
        content = content[-1].get("text")
    return content if isinstance(content, str) else None


def _extended(message: Message, end: str) -> dict[str, Any]:
    """The message with `end` behind its content."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": content + end}
    if isinstance(content, list | tuple) and content:
        last = {**content[-1], "text": content[-1]["text"] + end}
        return {**message, "content": [*content[:-1], last]}
    return dict(message)
