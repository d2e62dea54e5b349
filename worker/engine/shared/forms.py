"""In which form a chat template takes messages, and what of them it does not render. Pure.

Templates differ: some take a content's parts one by one, some want one text, some want parts
always; some write a call's arguments as JSON themselves, some expect JSON. Which form a template
takes is tried out on the skeleton of a chat: the right one shows every sentinel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from db.chat import text_of
from worker.engine.shared.chat_template import TemplateRefusal
from worker.engine.shared.skeleton import (
    Leaf,
    Message,
    Skeleton,
    Tool,
    parsed_arguments,
    part_key,
)
from worker.engine.shared.written_numbers import json_text

#: Names that templates have for an assistant's reasoning.
_REASONING = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True, slots=True)
class Form:
    """How messages are given to a template."""

    #: Roles whose parts of a content are joined, by a newline, to one text.
    joined: frozenset[str] = frozenset()
    #: Roles whose text becomes a part.
    wrapped: frozenset[str] = frozenset()
    #: Arguments of calls are JSON, not objects.
    arguments_as_json: bool = False
    #: A message without a content has an empty one.
    filled: bool = False

    def of(self, messages: Sequence[Message], *, keyed: bool = False) -> list[dict[str, Any]]:
        """The messages in this form; `keyed`: a part has its `part_key`, as in a skeleton."""
        return [_with_reasoning(self._message(message, keyed)) for message in messages]

    def _message(self, message: Message, keyed: bool) -> dict[str, Any]:
        formed, content = dict(message), message.get("content")
        if isinstance(content, str) and message["role"] in self.wrapped:
            key = {part_key(content): ""} if keyed else {}
            formed["content"] = [{"type": "text", "text": content, **key}]
        elif isinstance(content, list | tuple) and message["role"] in self.joined:
            formed["content"] = text_of(content)
        elif content is None and self.filled:
            formed["content"] = ""
        if formed.get("tool_calls"):
            formed["tool_calls"] = [self._call(call) for call in formed["tool_calls"]]
        return formed

    def _call(self, call: Message) -> dict[str, Any]:
        function = call["function"]
        arguments = function.get("arguments")
        if not self.arguments_as_json:
            arguments = parsed_arguments(arguments)
        elif isinstance(arguments, Mapping):
            arguments = json_text(arguments)
        return {**call, "function": {**function, "arguments": arguments}}


#: What most templates take.
PLAIN = Form()


@dataclass(frozen=True, slots=True)
class Plan:
    """How chats of one shape are given to a template."""

    form: Form
    #: What it does not render, in order.
    omitted: tuple[Leaf, ...]
    #: The template's own words, with a sentinel for each text; None: it raises on sentinels.
    frame: str | None


#: Renders messages and tools. Raises TemplateRefusal.
Render = Callable[[Sequence[Message], Sequence[Tool] | None], str]


def plan(skeleton: Skeleton, render: Render) -> Plan:
    """The form in which the template renders most of the skeleton; the plainest of these."""
    first = _tried(PLAIN, skeleton, render)
    if first.frame is not None and not first.omitted:
        return first
    best = first
    for form in _others(skeleton, first):
        tried = _tried(form, skeleton, render)
        if tried.frame is None:
            continue
        if best.frame is None or len(tried.omitted) < len(best.omitted):
            best = tried
        if not best.omitted:
            break
    return best


def _tried(form: Form, skeleton: Skeleton, render: Render) -> Plan:
    try:
        text = render(form.of(skeleton.messages, keyed=True), skeleton.tools)
    except TemplateRefusal:
        return Plan(form, (), None)
    omitted = (leaf for leaf in skeleton.leaves if not leaf.optional and _is_omitted(leaf, text))
    return Plan(form, tuple(omitted), text)


def _is_omitted(leaf: Leaf, text: str) -> bool:
    """Whether the text lacks it, or has it in an object that was written out as such."""
    if leaf.sentinel not in text:
        return True
    if leaf.key == "content":
        return part_key(leaf.sentinel) in text
    # Arguments in Python's notation, which is not JSON.
    return leaf.path.endswith(".arguments") and f"': '{leaf.sentinel}'}}" in text


def _others(skeleton: Skeleton, first: Plan) -> Iterator[Form]:
    """Forms that may do better than the plain one, of which `first` came."""
    contents = [(str(one["role"]), one.get("content")) for one in skeleton.messages]
    omitted = {str(leaf.role) for leaf in first.omitted if leaf.key == "content"}
    parts = {role for role, content in contents if isinstance(content, list | tuple)}
    texts = {role for role, content in contents if isinstance(content, str) and content}
    calls = any(one.get("tool_calls") for one in skeleton.messages)
    lacks_content = any(content is None for _, content in contents)
    for choice in product(
        _sets(parts, omitted), _sets(texts, omitted), _either(calls), _either(lacks_content)
    ):
        form = Form(*choice)
        if form != PLAIN:
            yield form


def _sets(roles: set[str], omitted: set[str]) -> list[frozenset[str]]:
    """None of these roles, those that were omitted, all of them."""
    choices = (frozenset[str](), frozenset(roles & omitted), frozenset(roles))
    return list(dict.fromkeys(choices))


def _either(relevant: bool) -> tuple[bool, ...]:
    return (False, True) if relevant else (False,)


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its reasoning under each name that a template may have for it."""
    reasoning = message.get("reasoning_content")
    return {**dict.fromkeys(_REASONING, reasoning), **message} if reasoning else message
