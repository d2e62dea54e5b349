"""Calls of functions in what a model wrote, and grammars that make it write one. Pure.

A chat template tells its model how to write a call; the ways that are known stand in `KNOWN`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.chat import arguments_schema
from db.exact_json import dumps, loads, loads_first
from worker.engine.shared.written_numbers import json_text

Tool = Mapping[str, Any]

#: As OpenAI writes it: `{"id", "type": "function", "function": {"name", "arguments"}}`.
Call = dict[str, Any]

#: Function and arguments, these as JSON.
Named = tuple[str, str]

#: Between two tokens of JSON, at most one space.
_JSON_SPACE = {"whitespace_pattern": "[ ]?"}


@dataclass(frozen=True, slots=True)
class Format:
    """How a model writes calls: as JSON objects between marks, each with the key `name`."""

    #: Whose it is.
    name: str
    begin: str
    end: str
    #: Between the marks stands a list of calls, not one.
    listed: bool = False
    #: The key of the arguments.
    arguments: str = "arguments"
    #: White space between a mark and the JSON, as the model was trained.
    space: str = ""


HERMES = Format("hermes", "<tool_call>", "</tool_call>", space="\n")
GRANITE = Format("granite", "<|tool_call|>", "", listed=True)
MISTRAL = Format("mistral", "[TOOL_CALLS]", "", listed=True, space=" ")
LLAMA = Format("llama", "", "", arguments="parameters")
#: Tags in place of JSON; read, but nothing can be made to follow it.
QWEN_CODER = Format("qwen-coder", "<tool_call>", "</tool_call>")

KNOWN = (HERMES, GRANITE, MISTRAL, LLAMA, QWEN_CODER)

#: What Llama's template says of the form that a call has.
_LLAMA_SAYS = '"parameters": dictionary of argument name and its value'
#: What Llama's models may write before a call.
_PYTHON_TAG = "<|python_tag|>"

_CODER_CALL = re.compile(r"<function=([^>\s]+)>(.*?)</function>", re.DOTALL)
_CODER_ARGUMENT = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


def format_of(template: str) -> Format | None:
    """How a chat template tells its model to write calls; None: in no way that is known."""
    if "<tool_call>" in template:
        if "<function=" in template:
            return QWEN_CODER
        return HERMES if "arguments" in template and "<arg_key>" not in template else None
    if "<|tool_call|>" in template:
        return GRANITE
    if "[TOOL_CALLS]" in template:
        return None if "[ARGS]" in template or "[CALL_ID]" in template else MISTRAL
    return LLAMA if _LLAMA_SAYS in template else None


def marks(format_: Format) -> tuple[str, ...]:
    """Its marks, which a tokenizer may take for special tokens."""
    return tuple(filter(None, (format_.begin, format_.end, _PYTHON_TAG)))


def find(format_: Format, text: str, tools: Sequence[Tool]) -> tuple[str, list[Named]] | None:
    """What stands beside the calls, and the calls; None: there are none that can be read.

    One that is broken or cut off makes the whole text none.
    """
    if format_ == LLAMA:
        named = _bare(text.strip().removeprefix(_PYTHON_TAG))
        known = {tool["function"]["name"] for tool in tools}
        return ("", named) if named and {name for name, _ in named} <= known else None
    before, found, rest = text.partition(format_.begin)
    if not found:
        return None
    calls: list[Named] = []
    while found:
        read = _coder(rest, tools) if format_ == QWEN_CODER else _json(format_, rest)
        if read is None:
            return None
        calls += read[0]
        between, found, rest = read[1].partition(format_.begin)
        before = f"{before}{between}"
    return before.strip(), calls


def _json(format_: Format, text: str) -> tuple[list[Named], str] | None:
    """The calls that `text` begins with, and what follows them."""
    read = _decoded(text)
    if read is None:
        return None
    value, rest = read
    # A model may end with its end token in place of the mark.
    if rest and not rest.startswith(format_.end):
        return None
    items = value if format_.listed and isinstance(value, list) else [value]
    named = [one for item in items if (one := _named(item, format_.arguments)) is not None]
    if not named or len(named) < len(items):
        return None
    return named, rest.removeprefix(format_.end)


def _bare(text: str) -> list[Named]:
    """The calls of which the text is made, `;` or white space between them; [] if it is not."""
    calls: list[Named] = []
    while text:
        read = _decoded(text)
        named = None if read is None else _named(read[0], LLAMA.arguments)
        if read is None or named is None:
            return []
        calls.append(named)
        text = read[1].removeprefix(";").lstrip()
    return calls


def _decoded(text: str) -> tuple[Any, str] | None:
    """The JSON that `text` begins with, and the rest."""
    text = text.lstrip()
    try:
        value, at = loads_first(text)
    except (ValueError, RecursionError):
        return None
    return value, text[at:].lstrip()


def _named(value: object, key: str) -> Named | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get(key, {})
    if isinstance(arguments, str):
        return value["name"], arguments
    return (value["name"], json_text(arguments)) if isinstance(arguments, dict) else None


def _coder(text: str, tools: Sequence[Tool]) -> tuple[list[Named], str] | None:
    """A call in tags; what a value is, the function's schema says."""
    inside, _, rest = text.partition("</tool_call>")
    found = _CODER_CALL.fullmatch(inside.strip())
    if found is None:
        return None
    properties = _properties(found[1], tools)
    arguments = {
        name: _typed(value, properties.get(name))
        for name, value in _CODER_ARGUMENT.findall(found[2])
    }
    return [(found[1], json_text(arguments))], rest


def _properties(name: str, tools: Sequence[Tool]) -> Mapping[str, Any]:
    for tool in tools:
        parameters = tool["function"].get("parameters")
        if tool["function"]["name"] == name and isinstance(parameters, Mapping):
            properties = parameters.get("properties")
            return properties if isinstance(properties, Mapping) else {}
    return {}


def _typed(text: str, schema: object) -> Any:
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return text
    try:
        return loads(text)
    except ValueError:
        return text


def numbered(calls: Sequence[Named], seed: int, index: int) -> tuple[Call, ...]:
    """The calls of sample number `index` as OpenAI writes them; a repeat gives the same ids."""
    return tuple(
        {
            "id": f"call_{_digest(seed, index, place)}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for place, (name, arguments) in enumerate(calls)
    )


def _digest(seed: int, index: int, place: int) -> str:
    return hashlib.blake2b(b"%d:%d:%d" % (seed, index, place), digest_size=12).hexdigest()


def grammar(
    format_: Format, tools: Sequence[Tool], token_id: Callable[[str], int | None], *, several: bool
) -> str:
    """In Lark's notation as llguidance reads it: one call of any of these, or `several`.

    `token_id` gives the id of a mark that is a token of its own.
    """
    begin, end = (_terminal(mark, token_id) for mark in (format_.begin, format_.end))
    space = _quoted(format_.space)
    rules = [
        f"call_{place}: {_quoted(_head(tool, format_))} arguments_{place} {_quoted('}')}\n"
        f"arguments_{place}: %json {_schema(tool)}"
        for place, tool in enumerate(tools)
    ]
    one = " | ".join(f"call_{place}" for place in range(len(tools)))
    if format_.listed:
        more = f" ({_quoted(', ')} one)*" if several else ""
        start = f'{begin} {space} "[" one{more} "]" {end}'
    else:
        whole = f"{begin} {space} one {space} {end}"
        start = f"{whole} ({_quoted('; ' if format_ == LLAMA else chr(10))} {whole})*"
        start = start if several else whole
    return "\n".join([f"start: {start}", f"one: {one}", *rules])


def _head(tool: Tool, format_: Format) -> str:
    return f'{{"name": {json_text(tool["function"]["name"])}, "{format_.arguments}": '


def _schema(tool: Tool) -> str:
    return dumps({**arguments_schema(tool), "x-guidance": _JSON_SPACE}).decode()


def _terminal(mark: str, token_id: Callable[[str], int | None]) -> str:
    number = token_id(mark) if mark else None
    return _quoted(mark) if number is None else f"<[{number}]>"


def _quoted(text: str) -> str:
    """A text as Lark writes it; nothing for an empty one, which it has no sign for."""
    return json.dumps(text) if text else ""
