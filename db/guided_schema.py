"""A JSON Schema in a form that a guide can follow: those of pydantic and zod among others. Pure.

A guide knows no `oneOf`, as it can't take back a token once two branches hold. Where no value can
satisfy two of its branches, `oneOf` is `anyOf`. Whatever satisfies the new schema satisfies the old
one, by which answers are checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from db.disjoint_schemas import Schemas
from db.json_schema import NAMED, ONE, SEVERAL

#: Keywords that say nothing about a value.
_ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "examples", "example", "deprecated", "readOnly"),
        *("writeOnly", "$comment", "contentEncoding", "contentMediaType", "contentSchema"),
        *("discriminator", "externalDocs", "xml", "errorMessage", "markdownDescription"),
    )
)

#: Formats that JSON Schema does not have: others write them, and to it they say nothing.
_FOREIGN_FORMATS = frozenset(
    (
        *("binary", "byte", "base64", "base64url", "password", "file-path", "directory-path"),
        *("path", "ipvanyaddress", "ipvanyinterface", "ipvanynetwork", "json-string", "color"),
        *("int32", "int64", "uint32", "uint64", "float", "double", "decimal", "safeint"),
        *("cuid", "cuid2", "ulid", "nanoid", "xid", "ksuid", "guid", "jwt", "emoji", "e164"),
        *("uuid1", "uuid3", "uuid4", "uuid5", "uuid6", "uuid7", "uuid8", "multi-host-uri"),
    )
)


def guided_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without annotations and without `oneOf`.

    Raises ValueError for a `oneOf` of which two branches may hold at once.
    """
    new: dict[str, Any] = _Rewriting(schema).rewritten(schema, "$")
    return new


class _Rewriting:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._schemas = Schemas(root)

    def rewritten(self, schema: Any, place: str) -> Any:
        if not isinstance(schema, Mapping):
            return schema
        new = {
            key: self._inner(key, value, f"{place}.{key}")
            for key, value in schema.items()
            if key not in _ANNOTATIONS and not key.startswith("x-") and key != "oneOf"
        }
        if schema.get("format") in _FOREIGN_FORMATS:
            del new["format"]
        if isinstance(schema.get("oneOf"), list):
            branches = self._branches(schema, f"{place}.oneOf")
            if "anyOf" in new:
                new["allOf"] = [*new.get("allOf", []), {"anyOf": branches}]
            else:
                new["anyOf"] = branches
        return self._with_named_keys(new)

    def _inner(self, key: str, value: Any, place: str) -> Any:
        if key in NAMED and isinstance(value, Mapping):
            return {name: self.rewritten(inner, f"{place}.{name}") for name, inner in value.items()}
        if key in SEVERAL and isinstance(value, list):
            return [self.rewritten(inner, f"{place}[{at}]") for at, inner in enumerate(value)]
        return self.rewritten(value, place) if key in ONE else value

    def _branches(self, schema: Mapping[str, Any], place: str) -> list[Any]:
        """Of a `oneOf`, as branches of an `anyOf`."""
        branches: Sequence[Any] = schema["oneOf"]
        clash = self._clash(branches)
        if clash is not None:
            tagged = next(self._tagged(schema, branches), None)
            if tagged is None:
                raise ValueError(
                    f"oneOf at {place}: a value may satisfy branch {clash[0]} and branch "
                    f"{clash[1]}: use anyOf, or give each branch a required property with a "
                    "'const' of its own (in pydantic, a discriminator)"
                )
            branches = tagged
        return [self.rewritten(one, f"{place}[{at}]") for at, one in enumerate(branches)]

    def _tagged(
        self, schema: Mapping[str, Any], branches: Sequence[Any]
    ) -> Iterator[list[dict[str, Any]]]:
        """The branches with a property required that tells them apart; none: there is none.

        Requiring more is within the schema: pydantic leaves a tag with a default optional.
        """
        resolved = [self._schemas.resolved(one) for one in branches]
        discriminator = schema.get("discriminator")
        named = discriminator.get("propertyName") if isinstance(discriminator, Mapping) else None
        names = [named, *resolved[0].get("properties", {})]
        for name in dict.fromkeys(filter(None, names)):
            if not all(name in one.get("properties", {}) for one in resolved):
                continue
            tagged = [
                {**one, "required": list(dict.fromkeys([*one.get("required", ()), name]))}
                for one in resolved
            ]
            if self._clash(tagged) is None:
                yield tagged

    def _clash(self, branches: Sequence[Any]) -> tuple[int, int] | None:
        """Two branches, by their places, that one value may satisfy; None: there are none."""
        return next(
            (
                (first, second)
                for first, second in combinations(range(len(branches)), 2)
                if not self._schemas.disjoint(branches[first], branches[second])
            ),
            None,
        )

    def _with_named_keys(self, schema: dict[str, Any]) -> dict[str, Any]:
        """`propertyNames` as properties: its names are known, or have a pattern, or are any."""
        names = self._schemas.resolved(schema.get("propertyNames"))
        if "propertyNames" not in schema or not names:
            return schema
        without = {key: value for key, value in schema.items() if key != "propertyNames"}
        rules = {key: value for key, value in names.items() if key not in _ANNOTATIONS}
        if rules in ({"type": "string"}, {}):
            return without
        if "properties" in schema or "patternProperties" in schema:
            return schema
        value = schema.get("additionalProperties", True)
        known = self._schemas.values(names)
        if known is not None:
            keys = [key for key in map(_text, known) if key is not None]
            return {
                **without,
                "properties": dict.fromkeys(keys, value),
                "additionalProperties": False,
            }
        if set(rules) <= {"type", "pattern"} and "pattern" in rules:
            return {
                **without,
                "patternProperties": {rules["pattern"]: value},
                "additionalProperties": False,
            }
        return schema


def _text(value: str) -> str | None:
    """A JSON string's text; None: it is of another type, and so no key."""
    text = json.loads(value)
    return text if isinstance(text, str) else None
