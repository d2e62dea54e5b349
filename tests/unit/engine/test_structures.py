"""Structured output in vLLM's words."""

from __future__ import annotations

from typing import Any

import pytest

from db.sampling import SamplingParams
from worker.engine.structures import for_vllm

SCHEMA = {"type": "object", "properties": {"b": {"type": "null"}, "a": {"type": "null"}}}


@pytest.mark.parametrize(
    ("given", "theirs"),
    [
        ({"response_format": {"type": "json_object"}}, {"json": {"type": "object"}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            {"json": SCHEMA},
        ),
        ({"regex": "a+"}, {"regex": "a+"}),
        ({"choice": ["a", "b"]}, {"choice": ["a", "b"]}),
        ({"grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
    ],
)
def test_given_a_structure_when_told_to_vllm_then_it_is_in_its_words(
    given: dict[str, Any], theirs: dict[str, Any]
) -> None:
    wanted = SamplingParams.model_validate(given).structure
    assert wanted is not None
    assert for_vllm(wanted) == theirs


def test_given_a_schema_when_told_then_its_properties_keep_their_order() -> None:
    form = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    wanted = SamplingParams(response_format=form).structure
    assert wanted is not None
    assert list(for_vllm(wanted)["json"]["properties"]) == ["b", "a"]
