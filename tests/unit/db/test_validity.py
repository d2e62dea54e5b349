"""Whether a text is of its structure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from db.structure import Structure
from db.validity import checker

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "born": {"type": "string", "format": "date"},
        "size": {"type": "number", "multipleOf": 0.1},
        "child": {"$ref": "#"},
    },
    "required": ["name"],
    "patternProperties": {r"^x-\p{L}+$": {"type": "integer"}},
    "additionalProperties": False,
}


def why(schema: Any, text: str) -> str | None:
    return checker(Structure("json_schema", json.dumps(schema)))(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "A", "born": "2024-02-28"}',
        # In any order, with any spaces, with any escapes: a model that nobody guides writes so.
        '{\n\t"born": "2024-02-28",\n\t"name": "\\u0041"\n}',
        ' {"name": "A", "size": 0.3} ',
        '{"name": "A", "size": 3e1}',
        '{"name": "A", "child": {"name": "B", "child": {"name": "C"}}}',
        '{"name": "A", "x-é": 1.0}',
    ],
)
def test_given_json_of_the_schema_when_checked_then_it_will_do(text: str) -> None:
    assert why(PERSON, text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is no JSON"),
        ("{", "it is no JSON"),
        ('{"name": "A"} and more', "it is no JSON"),
        ('```json\n{"name": "A"}\n```', "it is no JSON"),
        ('{"name": "A", "size": NaN}', "it is no JSON"),
        ("[" * 100_000, "it is nested too deeply"),
        ("[]", "it breaks the schema at type"),
        ("{}", "it breaks the schema at required"),
        ('{"name": ""}', "it breaks the schema at properties.name.minLength"),
        ('{"name": "A", "born": "2024-13-01"}', "it breaks the schema at properties.born.format"),
        ('{"name": "A", "size": 0.35}', "it breaks the schema at properties.size.multipleOf"),
        ('{"name": "A", "size": 1e999}', "it breaks the schema at properties.size.multipleOf"),
        (
            '{"name": "A", "child": {"name": 1}}',
            "it breaks the schema at properties.child.properties.name.type",
        ),
        ('{"name": "A", "x-1": 1}', "it breaks the schema at additionalProperties"),
        ('{"name": "A", "other": 1}', "it breaks the schema at additionalProperties"),
    ],
)
def test_given_a_text_that_is_none_when_checked_then_the_place_is_told_and_not_the_text(
    text: str, reason: str
) -> None:
    told = why(PERSON, text)
    assert told is not None
    assert told.startswith(reason)


def test_given_a_draft_when_checked_then_its_words_mean_what_they_mean_there() -> None:
    old = {"type": "integer", "minimum": 3, "exclusiveMinimum": True}
    assert why(old, "3") == "it breaks the schema at minimum"
    assert why({**old, "$schema": "http://json-schema.org/draft-04/schema#"}, "4") is None
    tuples = {"items": [{"type": "string"}, {"type": "integer"}]}
    assert why(tuples, '["a", "b"]') == "it breaks the schema at items.1.type"
    # A reference to the top stays under our own meaning of its words, with a `$schema` too.
    itself = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"in": {"$ref": "#"}, "word": {"pattern": r"^\p{L}+$"}},
    }
    assert why(itself, '{"in": {"word": "é"}}') is None
    assert why(itself, '{"in": {"word": "1"}}') is not None


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        (r"b\d$", "ab1", True),
        (r"b\d$", "ab1\n", False),
        (r"^\u00e9\x{e9}$", "éé", True),
        (r"^\\u00e9$", "\\u00e9", True),
        (r"^\d$", "\u0663", False),
        ("(a+)+$", "a" * 5_000 + "b", False),
    ],
)
def test_given_a_pattern_when_checked_then_it_may_match_anywhere_and_takes_no_time(
    pattern: str, text: str, fits: bool
) -> None:
    told = why({"type": "string", "pattern": pattern}, json.dumps(text))
    assert (told is None) == fits


def test_given_a_schema_of_the_network_when_checked_then_nothing_is_fetched() -> None:
    with pytest.raises(Exception, match=r"example\.invalid"):
        why({"properties": {"a": {"$ref": "https://example.invalid/s"}}}, '{"a": 1}')


@pytest.mark.parametrize(
    ("kind", "structure", "good", "bad"),
    [
        ("regex", "[0-9]{2}|é+", ["12", "éé"], ["", "1", "123", "x12", "é\ud800"]),
        ("regex", "a*", ["", "aa"], ["ab"]),
        ("choice", json.dumps(["yes", "no way"]), ["yes", "no way"], ["Yes", "no", "yes ", ""]),
        ("grammar", 'start: "a" b\nb: "c"+', ["acc"], ["a", "accd"]),
        ("grammar", 'root ::= "a" [b-c]*', ["a", "abc"], ["b", "ad"]),
    ],
)
def test_given_another_structure_when_checked_then_the_whole_text_must_be_of_it(
    kind: str, structure: str, good: list[str], bad: list[str]
) -> None:
    check = checker(Structure(kind, structure))
    assert [one for one in good if check(one)] == []
    assert [one for one in bad if check(one) is None] == []


@pytest.mark.parametrize("grammar", ['start: "a" <|end|>', 'start: "a" <[5]>'])
def test_given_a_grammar_of_a_models_own_tokens_when_checked_then_it_is_refused(
    grammar: str,
) -> None:
    with pytest.raises(ValueError, match="names tokens of a model"):
        checker(Structure("grammar", grammar))
    assert checker(Structure("grammar", 'start: "<|end|>"'))("<|end|>") is None
