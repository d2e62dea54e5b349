"""A misspelt keyword is told, wherever it stands; names that the user chose are not keywords."""

from __future__ import annotations

from typing import Any

import pytest

from db.errors import ParameterError
from db.json_schema import unknown_keyword
from db.sampling import normalise


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"propertis": {}}, "unknown keyword 'propertis' at $: did you mean 'properties'?"),
        ({"properties": {"a": {"requird": []}}}, "'requird' at $.properties.a"),
        ({"items": {"tpye": "null"}}, "'tpye' at $.items: did you mean 'type'?"),
        ({"anyOf": [{}, {"fromat": "date"}]}, "'fromat' at $.anyOf[1]"),
        ({"items": [{"zzzz": 1}]}, "'zzzz' at $.items[0]"),
    ],
)
def test_given_a_misspelt_keyword_when_checked_then_it_and_its_place_are_told(
    schema: dict[str, Any], says: str
) -> None:
    assert says in (unknown_keyword(schema) or "")
    with pytest.raises(ParameterError, match="the schema has an unknown keyword"):
        normalise({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}})


def test_given_names_and_values_of_the_users_when_checked_then_they_are_no_keywords() -> None:
    schema = {
        "$defs": {"propertis": {"type": "null"}},
        "properties": {"requird": {"const": {"tpye": 1}}, "b": {"enum": [{"fromat": 1}]}},
        "x-order": 1,
        "additionalProperties": False,
        "examples": [{"zzzz": 1}],
    }
    assert unknown_keyword(schema) is None
