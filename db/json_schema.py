"""Whether a JSON Schema uses keywords that exist: a misspelt one would be ignored. Pure."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from db.exact_json import WrittenNumber

#: Keywords whose value maps names to schemas, is a schema, or is a list of schemas.
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
ONE = (
    *("items", "additionalItems", "additionalProperties", "unevaluatedItems"),
    *("unevaluatedProperties", "propertyNames", "contains", "not", "if", "then", "else"),
)
SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems", "items")

#: The others, of the drafts from 4 to 2020-12, and `nullable`, which OpenAPI has.
_PLAIN = (
    *("$schema", "$id", "id", "$anchor", "$ref", "$dynamicRef", "$dynamicAnchor", "$comment"),
    *("$vocabulary", "type", "enum", "const", "format", "pattern", "required", "nullable"),
    *("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minContains"),
    *("maxContains", "minProperties", "maxProperties", "dependentRequired", "dependencies"),
    *("title", "description", "default", "examples", "example", "deprecated", "readOnly"),
    *("writeOnly", "contentEncoding", "contentMediaType", "contentSchema"),
    # Of OpenAPI and of libraries that write schemas: they say nothing about a value.
    *("discriminator", "externalDocs", "xml", "errorMessage", "markdownDescription"),
)
KEYWORDS = frozenset((*NAMED, *ONE, *SEVERAL, *_PLAIN))


def unknown_keyword(schema: object) -> str | None:
    """For people: the first keyword that does not exist, and where; None: all of them do.

    Those that begin with `x-` are for others.
    """
    for place, part in _schemas(schema, "$"):
        for key in part:
            if key not in KEYWORDS and not key.startswith("x-"):
                near = difflib.get_close_matches(key, KEYWORDS, n=1, cutoff=0.6)
                hint = f": did you mean '{near[0]}'?" if near else ""
                return f"unknown keyword '{key}' at {place}{hint}"
    return None


def _schemas(schema: object, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """This schema and all within it, each with its place."""
    if not isinstance(schema, Mapping):  # true, false, or nothing that is a schema
        return
    yield place, schema
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            for name, inner in value.items():
                yield from _schemas(inner, f"{place}.{key}.{name}")
        elif key in SEVERAL and isinstance(value, list):
            for number, inner in enumerate(value):
                yield from _schemas(inner, f"{place}.{key}[{number}]")
        elif key in ONE:
            yield from _schemas(value, f"{place}.{key}")


def inexact_number(schema: object) -> str | None:
    """For people: a number that must be generated and has more digits than a double, and where.

    None: there is none. llguidance would generate the nearest double, or nothing at all.
    """
    for place, part in _schemas(schema, "$"):
        for key in ("const", "enum"):
            for number in _numbers(part.get(key)):
                if not _is_double(number):
                    return f"number {str(number)[:60]} in {place}.{key}"
    return None


def _numbers(value: object) -> Iterator[int | float]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner)


def _is_double(number: int | float) -> bool:
    """Whether the shortest digits of the nearest double are the number's."""
    try:
        shortest = float(number)
    except OverflowError:
        return False
    if not math.isfinite(shortest):
        return False
    exact = number.as_decimal() if isinstance(number, WrittenNumber) else Decimal(str(number))
    return exact == Decimal(repr(shortest))
