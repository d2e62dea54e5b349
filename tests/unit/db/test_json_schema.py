"""A misspelt keyword is told, wherever it stands; names that the user chose are not keywords."""

from __future__ import annotations

from typing import Any

import pytest

from db.errors import ParameterError
from db.exact_json import dumps, loads
from db.json_schema import inexact_number, unknown_keyword
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


@pytest.mark.parametrize(
    "number",
    ["9007199254740993", "123456789012345678901234567890", "1e400", "0.12345678901234567890"],
)
def test_number_that_no_double_is_cannot_be_generated(number: str) -> None:
    for text in (f'{{"const": {number}}}', f'{{"properties": {{"a": {{"enum": [{number}]}}}}}}'):
        format_ = {"type": "json_schema", "json_schema": {"schema": loads(text)}}
        with pytest.raises(
            ParameterError, match=rf"the schema has the number {number} in \$\..*string"
        ):
            normalise({"response_format": format_})


@pytest.mark.parametrize("number", ["1.10", "1e5", "-0", "9007199254740992", "0.1", "true"])
def test_number_that_is_a_double_can_be_generated(number: str) -> None:
    text = f'{{"enum": [{number}], "maximum": 9223372036854775807}}'
    assert inexact_number(loads(text)) is None
    format_ = {"type": "json_schema", "json_schema": {"schema": loads(f'{{"const": {number}}}')}}
    assert dumps(normalise({"response_format": format_})["response_format"]) == dumps(format_)
