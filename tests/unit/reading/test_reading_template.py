"""Templates: what is accepted, and what is refused when parsed."""

from __future__ import annotations

import pytest

from db.errors import UsageError
from producer.reading import Template, read
from producer.reading.texts import Refusal


def test_given_literals_columns_and_braces_when_parsed_then_columns_are_known() -> None:
    template = Template.parse("{{x}} {a} and {b c} and {a}")
    assert template.columns == ("a", "b c")
    assert template.render({"a": "1", "b c": "{a}"}) == "{x} 1 and {a} and 1"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{x.__class__}", "more than a column's plain name"),
        ("{x[0]}", "more than a column's plain name"),
        ("{x!r}", "more than a column's plain name"),
        ("{x:>9}", "more than a column's plain name"),
        ("{x:{y}}", "more than a column's plain name"),
        ("{}", "names no column"),
        ("{", "Single '{'"),
        ("a } b", "Single '}'"),
        ("{x", "expected '}'"),
        ("", "names no column"),
        ("plain", "names no column"),
        ("{{x}}", "names no column"),
        ("\0{x}", "NUL"),
        ("\ud800{x}", "lone surrogate"),
    ],
)
def test_given_a_bad_template_when_parsed_then_refused_in_one_line(text: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template.parse(text)
    assert caught.value.message.startswith("template '")
    assert part in caught.value.message
    assert "write columns as {name}" in caught.value.message
    assert "\n" not in caught.value.message


def test_given_a_bad_template_when_reading_starts_then_no_file_is_touched() -> None:
    with pytest.raises(UsageError, match="plain name"):
        read(["gone.csv"], template="{x.y}")


def test_given_a_missing_column_when_rendered_then_existing_ones_are_named() -> None:
    with pytest.raises(Refusal, match="no column 'a' for the template: there are 'b', 'c'"):
        Template.parse("{a}").render({"b": 1, "c": 2})
    with pytest.raises(Refusal, match="there are none"):
        Template.parse("{a}").render({})
