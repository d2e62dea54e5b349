"""Items that are decoded already, as `Client.submit(iterable)` gets them."""

from __future__ import annotations

import types
from typing import Any

import pytest

from db.errors import UsageError
from producer.reading import BadLine, Line, parse


def parsed(item: object, **options: Any) -> Line | BadLine:
    return parse(item, source="items", number=3, **options)


@pytest.mark.parametrize("item", ["Hi", {"prompt": "Hi"}, types.MappingProxyType({"prompt": "Hi"})])
def test_given_text_or_a_mapping_when_parsed_then_it_is_a_request(item: object) -> None:
    assert parsed(item) == Line("items", 3, {"prompt": "Hi"})


def test_given_a_template_when_parsed_then_texts_and_rows_are_filled() -> None:
    assert parsed("Hi", template="{text}!") == Line("items", 3, {"prompt": "Hi!"})
    row = Line("items", 3, {"prompt": "1!"}, columns="[1]")
    assert parsed({"a": 1}, template="{a}!") == row
    with pytest.raises(UsageError, match="plain name"):
        parsed("Hi", template="{text.x}")


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (3, "this is a number: a request is text or an object"),
        (None, "this is null: a request is text or an object"),
        (b"Hi", "this is a bytes: a request is text or an object"),
        ("", "the prompt is empty: give it text or remove it"),
        ("a\0", "the prompt has a NUL character at position 1: PostgreSQL can't store it"),
        ("a\ud800b", "the prompt has a lone surrogate (\\ud800) at position 1: it is not valid"),
        ({"prompt": "a\udfff"}, "the prompt has a lone surrogate (\\udfff) at position 1"),
        ({"prompt": b"a"}, "the prompt is a bytes: it must be text, in quotes"),
        ({"prompt": "a", 3: 4}, "unknown key 3: known are prompt"),
        ({"prompt": "a", "custom_id": "\ud800"}, "custom_id has a lone surrogate"),
        ({"prompt": "a", "stop": object()}, "parameter 'stop'"),
    ],
)
def test_given_a_bad_item_when_parsed_then_it_is_a_value_with_a_reason(
    item: object, reason: str
) -> None:
    bad = parsed(item)
    assert isinstance(bad, BadLine)
    assert bad.reason.startswith(reason)
    assert bad.message == f"items: item 3: {bad.reason}"


def test_given_a_reason_of_many_lines_when_told_then_it_is_one_line() -> None:
    assert BadLine("f", 1, "a\nb\r\nc").message == "f:1: a b c"
