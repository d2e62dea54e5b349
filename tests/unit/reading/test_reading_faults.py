"""Everything that is wrong with a line is reported at once, within bounds."""

from __future__ import annotations

from typing import Any

import pytest

from producer.reading import BadLine, parse

USER = {"role": "user", "content": "one"}


def reason(item: Any) -> str:
    line = parse(item, source="f", number=1)
    assert isinstance(line, BadLine)
    return line.reason


def test_several_faults_of_a_line_are_in_one_message() -> None:
    found = reason({"prompt": "", "n": 0, "top_p": 3}).split("; also: ")
    assert [part.split(":")[0] for part in found] == [
        "parameter 'top_p'",
        "parameter 'n'",
        "the prompt is empty",
    ]


def test_many_faults_of_a_line_are_counted() -> None:
    found = reason({"prompt": 1, "custom_id": [], "n": 0, "top_p": 3, "seed": "x", "model": 1})
    assert found.count("; also: ") == 2
    assert found.endswith("; and 3 more")


def test_faults_of_a_chat_and_of_its_tools_are_both_reported() -> None:
    found = reason({"messages": [{"role": "x"}, USER, {"role": "y"}], "tools": [1], "n": 0})
    for part in ("parameter 'n'", "messages[0] has the role 'x'", "messages[2] has the role 'y'"):
        assert part in found
    assert found.endswith("; and 1 more")


def test_faults_of_an_openai_line_are_reported_at_once() -> None:
    line = {"method": "POST", "url": "/v1/chat/completions", "custom_id": []}
    found = reason({**line, "body": {"messages": [USER], "n": 0, "model": ""}})
    assert found.count("; also: ") == 2


@pytest.mark.parametrize("item", [{"prompt": "a", "n": 0}, {"messages": []}, {"prompt": ""}])
def test_single_fault_is_a_plain_message(item: Any) -> None:
    assert "also" not in reason(item)
