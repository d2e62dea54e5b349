"""Templates: what is accepted, and what is refused when parsed."""

from __future__ import annotations

from typing import Any

import pytest

from db.errors import UsageError
from producer.reading import BadLine, Line, Template, parse, read
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


def messages_of(row: dict[str, Any], **options: Any) -> list[dict[str, str]]:
    line = parse(row, source="f", number=1, **options)
    assert isinstance(line, Line), line
    messages: list[dict[str, str]] = line.request["messages"]
    return messages


def test_template_makes_a_chat_with_a_system_message() -> None:
    row = {"text": "Good.", "lang": "English"}
    assert messages_of(row, template="Label: {text}", chat=True) == [
        {"role": "user", "content": "Label: Good."}
    ]
    found = messages_of(row, template="{text}", chat=True, system="Answer in {lang}. {{}}")
    assert found == [
        {"role": "system", "content": "Answer in English. {}"},
        {"role": "user", "content": "Good."},
    ]
    assert messages_of(row, template="{text}", chat=True, system="Be brief.")[0] == {
        "role": "system", "content": "Be brief."
    }  # fmt: skip


def test_column_of_the_system_message_must_be_there() -> None:
    line = parse({"text": "a"}, source="f", number=1, template="{text}", system="{x}", chat=True)
    assert isinstance(line, BadLine)
    assert line.reason == "no column 'x' for the template: there are 'text'"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"system": "a"}, "--system is for chats that --template makes"),
        ({"chat": True}, "--chat is for what --template makes"),
        ({"template": "{a}", "system": "a"}, "each row becomes a bare prompt: give --chat"),
    ],
)
def test_chat_options_that_fit_nothing_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse({"a": 1}, source="f", number=1, **options)
