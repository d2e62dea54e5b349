"""Whether two JSON Schemas exclude each other: no value satisfies both. Pure.

A proof, not a guess: False means that none was found. It looks at types, at constants and lists
of values, and at required properties that have such.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: Types by the schema's word; every integer is a number.
_TYPES = {
    "null": {"null"},
    "boolean": {"boolean"},
    "object": {"object"},
    "array": {"array"},
    "string": {"string"},
    "integer": {"integer"},
    "number": {"integer", "number"},
}
_ALL = frozenset().union(*_TYPES.values())

#: References and branches that are followed one within the other, at most.
_DEEPEST = 16


class Schemas:
    """The schemas of one document, whose references mean each other."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def disjoint(self, first: Any, second: Any) -> bool:
        """Whether it is proven that no value satisfies both."""
        if first is False or second is False:
            return True
        one, other = self.resolved(first), self.resolved(second)
        shared = self._types(one) & self._types(other)
        if not shared:
            return True
        values, others = self.values(one), self.values(other)
        if values is not None and others is not None and not values & others:
            return True
        if shared != {"object"}:
            return False
        return self._tagged(one, other) or _excludes(one, other) or _excludes(other, one)

    def resolved(self, schema: Any, depth: int = 0) -> Mapping[str, Any]:
        """The schema with a reference at its top followed; empty where it says nothing."""
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return {}
        wrapped = schema.get("allOf")
        if isinstance(wrapped, list) and len(wrapped) == 1:
            inner, rest = wrapped[0], {key: schema[key] for key in schema if key != "allOf"}
        elif isinstance(schema.get("$ref"), str):
            inner = self._target(schema["$ref"])
            rest = {key: schema[key] for key in schema if key != "$ref"}
        else:
            return schema
        target = dict(self.resolved(inner, depth + 1))
        if {"properties", "additionalProperties"} & rest.keys():
            target.pop("additionalProperties", None)  # it means the properties beside it alone
        return {**target, **rest}

    def values(self, schema: Any, depth: int = 0) -> frozenset[str] | None:
        """The values that satisfy it, as JSON, at most; None: they are not listed."""
        one = self.resolved(schema, depth)
        if "const" in one:
            return frozenset({_canonical(one["const"])})
        if isinstance(one.get("enum"), list):
            return frozenset(map(_canonical, one["enum"]))
        for key in ("anyOf", "oneOf"):
            branches = one.get(key)
            if isinstance(branches, list) and branches and depth < _DEEPEST:
                found = [self.values(branch, depth + 1) for branch in branches]
                listed = [values for values in found if values is not None]
                if len(listed) == len(found):
                    return frozenset().union(*listed)
        return None

    def _types(self, schema: Any, depth: int = 0) -> frozenset[str]:
        """Types of values that may satisfy it."""
        one = self.resolved(schema, depth)
        given = one.get("type", [])
        words = [given] if isinstance(given, str) else list(given)
        types = frozenset().union(*(_TYPES.get(word, _ALL) for word in words)) if words else _ALL
        values = self.values(one, depth)
        if values is not None:
            types &= frozenset().union(*(_TYPES[_type_of(json.loads(one))] for one in values))
        for key in ("anyOf", "oneOf"):
            branches = one.get(key)
            if isinstance(branches, list) and depth < _DEEPEST:
                types &= frozenset().union(*(self._types(b, depth + 1) for b in branches))
        return types if one.get("nullable") is not True else types | {"null"}

    def _tagged(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        """Whether both require a property whose values are others in each."""
        for name in self._required(one) & self._required(other):
            values, others = self._tags(one, name), self._tags(other, name)
            if values is not None and others is not None and not values & others:
                return True
        return False

    def _required(self, schema: Any, depth: int = 0) -> frozenset[str]:
        one = self.resolved(schema, depth)
        names = frozenset(one.get("required", ()))
        for key in ("anyOf", "oneOf"):
            branches = one.get(key)
            if isinstance(branches, list) and branches and depth < _DEEPEST:
                inner = [self._required(branch, depth + 1) for branch in branches]
                names |= frozenset.intersection(*inner)
        return names

    def _tags(self, schema: Any, name: str, depth: int = 0) -> frozenset[str] | None:
        """Values of a property of an object."""
        one = self.resolved(schema, depth)
        own = one.get("properties", {})
        if isinstance(own, Mapping) and name in own:
            values = self.values(own[name])
            if values is not None:
                return values
        for key in ("anyOf", "oneOf"):
            branches = one.get(key)
            if isinstance(branches, list) and branches and depth < _DEEPEST:
                found = [self._tags(branch, name, depth + 1) for branch in branches]
                listed = [values for values in found if values is not None]
                if len(listed) == len(found):
                    return frozenset().union(*listed)
        return None

    def _target(self, reference: str) -> Any:
        """What a reference within the document means; None: it is another one's."""
        if not reference.startswith("#"):
            return None
        target: Any = self._root
        for part in reference[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, Mapping) or key not in target:
                return None
            target = target[key]
        return target


def _excludes(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the one requires a property that the other does not allow."""
    if other.get("additionalProperties") is not False or "patternProperties" in other:
        return False
    return bool(set(one.get("required", ())) - set(other.get("properties", {})))


def _canonical(value: Any) -> str:
    """As JSON, the same for equal values."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) or value.is_integer() else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
