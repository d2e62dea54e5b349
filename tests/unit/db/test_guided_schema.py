"""Schemas that pydantic and zod write compile, and what the guide lets through satisfies them."""

from __future__ import annotations

import datetime
import enum
import json
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, SecretStr, create_model

from db.byte_validity import byte_checker
from db.disjoint_schemas import Schemas
from db.guided_schema import guided_schema
from db.structure import Structure, compiled
from db.validity import checker


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    breed: str


class Listed(BaseModel):
    a: Literal["x", 3]


class Node(BaseModel):
    value: int
    children: list[Node] = []


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]

#: A model, a value that satisfies it, and one that does not.
MODELS: dict[str, tuple[type[BaseModel], Any, Any]] = {
    "nested": (
        create_model("M", a=(Cat, ...), b=(list[Dog], ...)),
        {"a": {"kind": "cat", "lives": 9}, "b": [{"kind": "dog", "breed": "x"}]},
        {"a": {"kind": "cow", "lives": 9}, "b": []},
    ),
    "optional": (
        create_model("M", a=(int | None, Field(None, description="d", examples=[1]))),
        {"a": None},
        {"a": "x"},
    ),
    "literal": (Listed, {"a": 3}, {"a": 4}),
    "enum": (create_model("M", a=(Colour, Colour.RED)), {"a": "blue"}, {"a": "green"}),
    "numbers": (
        create_model("M", a=(int, Field(ge=0, le=10)), b=(float, Field(gt=0, lt=1))),
        {"a": 10, "b": 0.5},
        {"a": 11, "b": 0.5},
    ),
    "text": (create_model("M", a=(str, Field(pattern="^a+$"))), {"a": "aa"}, {"a": "ab"}),
    "times": (
        create_model("M", a=(datetime.datetime, ...), b=(uuid.UUID, ...)),
        {"a": "2026-01-02T03:04:05Z", "b": "12345678-1234-4234-8234-123456789abc"},
        {"a": "now", "b": "12345678-1234-4234-8234-123456789abc"},
    ),
    "formats": (
        create_model("M", a=(bytes, ...), b=(SecretStr, ...), c=(Decimal, ...)),
        {"a": "x", "b": "y", "c": 1.5},
        {"a": 1, "b": "y", "c": 1.5},
    ),
    "mapping": (create_model("M", a=(dict[str, int], ...)), {"a": {"x": 1}}, {"a": {"x": "y"}}),
    "keys": (create_model("M", a=(dict[Colour, int], ...)), {"a": {"red": 1}}, {"a": {"x": 1}}),
    "tuple": (create_model("M", a=(tuple[int, str], ...)), {"a": [1, "x"]}, {"a": ["x", 1]}),
    "union": (create_model("M", a=(int | Cat | None, ...)), {"a": None}, {"a": "x"}),
    "tagged": (
        create_model("Owner", name=(str, ...), pet=(Pet, ...)),
        {"name": "x", "pet": {"kind": "dog", "breed": "y"}},
        {"name": "x", "pet": {"kind": "cat", "breed": "y"}},
    ),
    "root": (RootModel[list[Pet]], [{"kind": "cat", "lives": 1}], [{"kind": "cat"}]),
    "recursive": (
        Node,
        {"value": 1, "children": [{"value": 2, "children": []}]},
        {"value": 1, "children": [{"value": "x"}]},
    ),
}

#: As zod's toJSONSchema writes them.
ZOD = {
    "object": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "id": {"type": "string", "minLength": 1},
            "role": {"type": "string", "enum": ["admin", "user"], "default": "user"},
            "age": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
            "scores": {
                "type": "object",
                "propertyNames": {"type": "string"},
                "additionalProperties": {"type": "number"},
            },
        },
        "required": ["id", "role", "age", "scores"],
        "additionalProperties": False,
    },
    "union": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "oneOf": [
            {
                "type": "object",
                "properties": {"type": {"type": "string", "const": "a"}, "x": {"type": "number"}},
                "required": ["type", "x"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"type": {"type": "string", "const": "b"}},
                "required": ["type"],
                "additionalProperties": False,
            },
        ],
    },
}


def structure(schema: Any) -> Structure:
    return Structure("json_schema", json.dumps(schema))


def follows(schema: Any, value: Any) -> bool:
    """Whether the guide lets this value through."""
    check = byte_checker(compiled(structure(schema)), "the grammar")
    return check(json.dumps(value)) is None


@pytest.mark.parametrize("name", MODELS)
def test_pydantic_model_compiles_and_its_check_agrees(name: str) -> None:
    model, right, wrong = MODELS[name]
    schema = model.model_json_schema()
    assert follows(schema, right)
    assert not follows(schema, wrong)
    model.model_validate(right)
    check = checker(structure(schema))
    assert check(json.dumps(right)) is None
    assert check(json.dumps(wrong)) is not None


@pytest.mark.parametrize("name", ZOD)
def test_zod_schema_compiles(name: str) -> None:
    right = {
        "object": {"id": "x", "role": "user", "age": None, "scores": {"a": 1.5}},
        "union": {"type": "b"},
    }[name]
    assert follows(ZOD[name], right)
    assert checker(structure(ZOD[name]))(json.dumps(right)) is None
    assert not follows(ZOD[name], {"type": "c"})


def test_tag_with_a_default_is_written() -> None:
    schema = MODELS["tagged"][0].model_json_schema()
    assert not follows(schema, {"name": "x", "pet": {"breed": "y"}})


def test_properties_named_as_annotations_stay() -> None:
    schema = {
        "type": "object",
        "title": "T",
        "properties": {"title": {"const": 1, "description": "d"}, "default": {"type": "null"}},
        "x-order": 1,
    }
    assert guided_schema(schema) == {
        "type": "object",
        "properties": {"title": {"const": 1}, "default": {"type": "null"}},
    }


def test_constants_keep_keys_that_are_annotations_elsewhere() -> None:
    schema = {"enum": [{"title": 1, "oneOf": []}], "const": {"description": 2}}
    assert guided_schema(schema) == schema


@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "integer"}, {"type": "number"}],
        [{"type": "string"}, {"type": "string", "maxLength": 3}],
        [{"type": "object", "properties": {"a": {"const": 1}}}, {"type": "object"}],
        [{"properties": {"a": {"const": 1}}, "required": ["a"]}] * 2,
        [{"$ref": "#/nowhere"}, {"type": "null"}],
    ],
)
def test_branches_that_may_overlap_are_refused_by_name(branches: list[Any]) -> None:
    schema = {"properties": {"p": {"oneOf": branches}}}
    with pytest.raises(ValueError, match=r"oneOf at \$\.properties\.p\.oneOf.*use anyOf"):
        compiled(structure(schema))


@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "integer"}, {"type": ["string", "null"]}],
        [{"const": 1}, {"enum": [2, "1"]}],
        [
            {"type": "object", "required": ["a"], "additionalProperties": False,
             "properties": {"a": {}}},
            {"type": "object", "required": ["b"], "additionalProperties": False,
             "properties": {"b": {}}},
        ],
    ],
)  # fmt: skip
def test_branches_that_exclude_each_other_are_followed(branches: list[Any]) -> None:
    assert guided_schema({"oneOf": branches}) == {"anyOf": branches}


def test_a_one_of_beside_an_any_of_holds_with_it() -> None:
    schema = {"oneOf": [{"const": 1}, {"const": 2}], "anyOf": [{"const": 2}, {"const": 3}]}
    assert guided_schema(schema)["allOf"] == [{"anyOf": schema["oneOf"]}]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from([0.5, 1.0, "a", "b"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)
LEAVES = (
    st.builds(lambda value: {"const": value}, VALUES)
    | st.builds(lambda values: {"enum": values}, st.lists(VALUES, min_size=1, max_size=3))
    | st.builds(
        lambda words: {"type": words},
        st.lists(
            st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"]),
            min_size=1,
            max_size=3,
            unique=True,
        ),
    )
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=2))
        | st.builds(
            lambda properties, required, closed: {
                "type": "object",
                "properties": properties,
                "required": sorted(required),
                **({"additionalProperties": False} if closed else {}),
            },
            st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            st.sets(st.sampled_from("ab")),
            st.booleans(),
        )
    ),
    max_leaves=4,
)


@given(SCHEMAS, SCHEMAS, VALUES)
def test_no_value_satisfies_two_that_are_disjoint(first: Any, second: Any, value: Any) -> None:
    both = [jsonschema.Draft202012Validator(one).is_valid(value) for one in (first, second)]
    if all(both):
        assert not Schemas({}).disjoint(first, second)
