"""JSON Schemas as the parameter `response_format`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from db.errors import ParameterError

#: A JSON Schema, or a class with `model_json_schema()`, as pydantic's models are.
Schema = Mapping[str, Any] | type


def response_format(name: str, schema: Any) -> dict[str, Any]:
    """The parameter's value, in OpenAI's form."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


def with_schema(params: Mapping[str, Any] | None, schema: Schema | None) -> dict[str, Any]:
    """The parameters with the schema among them.

    Raises ParameterError where they have a `response_format`, and for what is no schema.
    """
    given = dict(params or {})
    if schema is None:
        return given
    if given.get("response_format") is not None:
        raise ParameterError("schema sets the parameter 'response_format', too: keep one of them")
    return {**given, "response_format": _format(schema)}


def _format(schema: Schema) -> dict[str, Any]:
    if isinstance(schema, Mapping):
        return response_format("schema", dict(schema))
    describe = getattr(schema, "model_json_schema", None)
    if describe is None:
        kind = schema.__name__ if isinstance(schema, type) else type(schema).__name__
        raise ParameterError(
            f"schema is {kind}: give a JSON Schema as a dict, or a pydantic model class"
        )
    return response_format(schema.__name__, describe())
