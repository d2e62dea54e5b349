"""A chat with a sentinel for each text: what a template does not render shows in what is missing.

A skeleton has nothing of the request's own but its shape: roles, which parts a message has, and
which functions may be called. Chats of one shape share it. Pure.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from db.exact_json import BrokenJson, loads
from worker.engine.shared.sentinels import LENGTH, sentinels

Message = Mapping[str, Any]
Tool = Mapping[str, Any]

#: Of a message: what says how it belongs to others. A template shows that by their order.
_REFERENCES = frozenset({"tool_call_id"})


@dataclass(frozen=True, slots=True)
class Leaf:
    """One text of a chat."""

    sentinel: str
    #: The message's number, from 0, or the tool's.
    position: int
    #: What follows that number in a path: `.content`, `.tool_calls[0].function.name`.
    path: str
    #: The message's role; None: it belongs to a tool.
    role: str | None
    #: It may be left out: the reasoning of an earlier turn.
    optional: bool = False

    def __str__(self) -> str:
        return f"{'tools' if self.role is None else 'messages'}[{self.position}]{self.path}"

    @property
    def key(self) -> str:
        """The key of the message that it is in."""
        return self.path.lstrip(".").partition(".")[0].partition("[")[0]


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A chat's shape. Skeletons of the same `key` are the same."""

    messages: tuple[Message, ...] = field(compare=False)
    tools: tuple[Tool, ...] | None = field(compare=False)
    leaves: tuple[Leaf, ...] = field(compare=False)
    key: str


#: From a text and its sentinel to what stands in the skeleton.
Write = Callable[[str, str], str]


def skeleton(
    messages: Sequence[Message],
    tools: Sequence[Tool] | None,
    *around: str,
    reasoning_of_earlier_turns: bool,
    texts: bool = False,
) -> Skeleton:
    """The skeleton of these, for a template that writes `around` them; no sentinel occurs there.

    `reasoning_of_earlier_turns`: a template may leave it out. `texts`: each sentinel stands behind
    its text and not in its place, for a template that is particular about texts.
    """
    if tools:
        around = (*around, json.dumps(tools, ensure_ascii=False))
    if texts:
        around = (*around, json.dumps(messages, ensure_ascii=False))
    builder = _Builder(
        sentinels(*around),
        (lambda text, sentinel: text + sentinel) if texts else (lambda _, sentinel: sentinel),
    )
    return builder.build(messages, tools, reasoning_of_earlier_turns=reasoning_of_earlier_turns)


def part_key(text: str) -> str:
    """A key that the part with this text of a skeleton has besides.

    Where it shows in a rendered text, the part was written out as an object.
    """
    return f"k{text[-LENGTH:]}"


def parsed_arguments(arguments: Any) -> Any:
    """A call's arguments as an object; as they are where they are no JSON."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return loads(arguments)
    except BrokenJson:
        return arguments


class _Builder:
    """Puts sentinels into a copy of a chat and remembers where they are."""

    def __init__(self, supply: Iterator[str], write: Write) -> None:
        self._supply = supply
        self._write = write
        self._leaves: list[Leaf] = []
        #: Ids of calls, in the form that the strictest template takes.
        self._ids: dict[str, str] = {}
        #: A called function's name as it was and as it is.
        self._called: dict[str, str] = {}

    def build(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None,
        *,
        reasoning_of_earlier_turns: bool,
    ) -> Skeleton:
        asked_last = max((n for n, one in enumerate(messages) if one["role"] == "user"), default=-1)
        built = tuple(
            self._message(
                number, message, earlier=reasoning_of_earlier_turns and number < asked_last
            )
            for number, message in enumerate(messages)
        )
        shown = None if not tools else tuple(self._tool(*item) for item in enumerate(tools))
        return Skeleton(
            built,
            shown,
            tuple(self._leaves),
            json.dumps([built, shown, [leaf.optional for leaf in self._leaves]]),
        )

    def _leaf(
        self, text: str, position: int, path: str, role: str | None, *, optional: bool = False
    ) -> str:
        """A sentinel for the text; a blank one leaves nothing to find."""
        if not text.strip():
            return ""
        sentinel = next(self._supply)
        self._leaves.append(Leaf(sentinel, position, path, role, optional))
        return self._write(text, sentinel)

    def _message(self, number: int, message: Message, *, earlier: bool) -> dict[str, Any]:
        role = str(message["role"])
        built: dict[str, Any] = {"role": role}
        for key, value in message.items():
            if key == "role" or value is None:
                continue
            if key == "content" and isinstance(value, list | tuple):
                built[key] = [self._part(*item, number, role) for item in enumerate(value)]
            elif key == "tool_calls":
                built[key] = [self._call(*item, number, role) for item in enumerate(value)]
            elif key in _REFERENCES:
                built[key] = self._id(str(value))
            elif key == "name" and role == "tool" and value in self._called:
                built[key] = self._called[value]
            elif isinstance(value, str):
                optional = earlier and key == "reasoning_content"
                built[key] = self._leaf(value, number, f".{key}", role, optional=optional)
            else:
                built[key] = value
        return built

    def _part(self, place: int, part: Any, number: int, role: str) -> Any:
        if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
            return part
        text = self._leaf(part["text"], number, f".content[{place}]", role)
        return {**part, "text": text, part_key(text): ""}

    def _call(self, place: int, call: Message, number: int, role: str) -> dict[str, Any]:
        path, function = f".tool_calls[{place}].function", call["function"]
        name = self._leaf(function["name"], number, f"{path}.name", role)
        self._called[function["name"]] = name
        arguments = parsed_arguments(function.get("arguments"))
        if arguments:
            value = self._leaf("-", number, f"{path}.arguments", role)
            arguments = {next(self._supply): value} if isinstance(arguments, Mapping) else value
        built = {**call, "function": {**function, "name": name, "arguments": arguments}}
        if call.get("id") is not None:
            built["id"] = self._id(str(call["id"]))
        return built

    def _id(self, given: str) -> str:
        # Mistral's templates take nine letters and digits, no more and no less.
        return self._ids.setdefault(given, f"{len(self._ids):09d}")

    def _tool(self, number: int, tool: Tool) -> dict[str, Any]:
        """Its name, its description, and its parameters' names and descriptions."""
        built: dict[str, Any] = copy.deepcopy(dict(tool))
        function = built["function"]
        path = ".function"
        for key in ("name", "description"):
            if isinstance(function.get(key), str):
                function[key] = self._leaf(function[key], number, f"{path}.{key}", None)
        parameters = function.get("parameters")
        if isinstance(parameters, dict) and isinstance(parameters.get("properties"), dict):
            self._parameters(number, parameters, f"{path}.parameters.properties")
        return built

    def _parameters(self, number: int, parameters: dict[str, Any], path: str) -> None:
        names: dict[str, str] = {}
        properties: dict[str, Any] = {}
        for name, schema in parameters["properties"].items():
            names[name] = self._leaf(name, number, f"{path}.{name}", None) or name
            properties[names[name]] = schema
            if isinstance(schema, dict) and isinstance(schema.get("description"), str):
                where = f"{path}.{name}.description"
                schema["description"] = self._leaf(schema["description"], number, where, None)
        parameters["properties"] = properties
        if isinstance(parameters.get("required"), list):
            parameters["required"] = [names.get(name, name) for name in parameters["required"]]
