"""What a text must look like: a JSON object, a schema, a pattern, one of some texts, a grammar.

Each becomes a grammar of llguidance, which says of every token whether it may come next. The same
text is compiled where a prompt is submitted, so that one which can't be is refused there, and
where it is generated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from db.exact_json import dumps, loads
from db.guided_schema import guided_schema
from db.json_schema import inexact_number, unknown_keyword

#: One space at most where JSON allows any: a model that likes them would never end.
_JSON_SPACE = "[ ]?"
_KINDS = ("text", "json_object", "json_schema")
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Structure:
    """A kind and its text: what `grammar` takes."""

    #: `json_schema`, `regex`, `choice` or `grammar`.
    kind: str
    #: JSON for `json_schema` and `choice`.
    text: str


def structure(
    response_format: Mapping[str, Any] | None,
    regex: str | None,
    choice: tuple[str, ...] | None,
    grammar: str | None,
) -> Structure | None:
    """What was asked for; None: any text. Raises ValueError for two at once or a bad format."""
    if response_format is None and regex is None and choice is None and grammar is None:
        return None
    asked = [
        one
        for one in (
            _format(response_format) if response_format is not None else None,
            Structure("regex", regex) if regex is not None else None,
            Structure("choice", json.dumps(choice)) if choice is not None else None,
            Structure("grammar", grammar) if grammar is not None else None,
        )
        if one is not None
    ]
    if len(asked) > 1:
        raise ValueError("give one of response_format, regex, choice and grammar, not two")
    return asked[0] if asked else None


@lru_cache(maxsize=_REMEMBERED)
def compiled(wanted: Structure) -> str:
    """Its grammar, as llguidance reads it. Raises ValueError with the reason if there is none."""
    from llguidance import LLMatcher

    if wanted.kind == "json_schema":
        schema = loads(wanted.text)
        strange = unknown_keyword(schema)
        if strange is not None:
            raise ValueError(f"the schema has an {strange}")
        inexact = inexact_number(schema)
        if inexact is not None:
            raise ValueError(
                f"the schema has the {inexact}, of which only the digits of a double can be "
                "generated: make it a string"
            )
    source = _grammar(wanted)
    reason = LLMatcher.validate_grammar(source)
    if reason:
        raise ValueError(f"{_NAMES[wanted.kind]} can't be followed: {' '.join(reason.split())}")
    return source


def lark(grammar: str) -> str:
    """A grammar in Lark's notation, as llguidance reads it. Raises ValueError."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_lark(grammar)


_NAMES = {
    "json_schema": "the schema",
    "regex": "the regular expression",
    "choice": "the choice",
    "grammar": "the grammar",
}


def _grammar(wanted: Structure) -> str:
    from llguidance import LLMatcher, grammar_from

    if wanted.kind == "json_schema":
        return LLMatcher.grammar_from_json_schema(
            dumps(guided_schema(loads(wanted.text))).decode(),
            overrides={"whitespace_pattern": _JSON_SPACE},
        )
    if wanted.kind == "grammar":
        return grammar_from("grammar", wanted.text)  # Lark or GBNF
    return grammar_from("regex" if wanted.kind == "regex" else "choice", wanted.text)


def _format(given: Mapping[str, Any]) -> Structure | None:
    """As OpenAI writes it: `{"type": "json_schema", "json_schema": {"schema": {...}}}`."""
    kind = given.get("type")
    if kind not in _KINDS:
        raise ValueError(f"response_format: its type is one of {', '.join(_KINDS)}, not {kind!r}")
    if kind == "text":
        return None
    if kind == "json_object":
        return Structure("json_schema", '{"type": "object"}')
    inner = given.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if not isinstance(schema, Mapping):
        raise ValueError(
            'response_format: a json_schema has the form {"type": "json_schema", '
            '"json_schema": {"name": ..., "schema": {...}}}'
        )
    return Structure("json_schema", dumps(schema).decode())
