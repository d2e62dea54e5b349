"""Thinking and calls of functions in every format."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from db.pages import MadePage
from db.records import Result
from producer.export import csv_table, jsonl, openai_batch, write
from producer.results_table import _outcome, print_table
from tests.support.results import batch, full_layout, result

CALLS: list[dict[str, Any]] = [
    {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Zürich"}'},
    }
]
CALLED = orjson.dumps(CALLS).decode()
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def thought(**changes: Any) -> Result:
    return result(reasoning="Hm,\n50 % of it.", **{"request": CHAT, **changes})


def called(text: str = "") -> Result:
    return result(
        line=2, text=text, finish_reason="tool_calls", tool_calls=CALLED, request=CHAT
    )  # fmt: skip


def test_given_thinking_and_calls_when_written_as_jsonl_then_only_those_that_there_are() -> None:
    page = MadePage([thought(), called(), result(line=3)])
    first, second, third = map(orjson.loads, jsonl.page_lines(page, full_layout()).splitlines())
    assert (first["reasoning"], first["text"]) == ("Hm,\n50 % of it.", "Hi there")
    assert "tool_calls" not in first
    assert (second["text"], second["tool_calls"]) == ("", CALLS)
    assert second["finish_reason"] == "tool_calls"
    assert "reasoning" not in second
    assert not {"reasoning", "tool_calls"} & set(third)


def test_given_the_same_when_written_as_csv_then_each_has_its_column() -> None:
    layout = full_layout(documents=False)
    (lines,) = csv_table.lines([MadePage([thought(), called()])], layout, raw=True)
    written = (csv_table.header(layout, raw=True) + lines[1]).decode()
    first, second = csv.DictReader(io.StringIO(written, newline=""))
    assert (first["reasoning"], first["tool_calls"]) == ("Hm,\n50 % of it.", "")
    assert orjson.loads(second["tool_calls"]) == CALLS


def test_given_thinking_that_begins_like_a_formula_when_written_as_csv_then_it_is_harmless() -> (
    None
):
    page = MadePage([result(reasoning="=1+1")])
    ((count, line),) = csv_table.lines([page], full_layout(documents=False), raw=False)
    assert count == 1
    assert b"'=1+1" in line


def test_given_the_same_when_written_as_parquet_then_each_has_its_column(tmp_path: Path) -> None:
    target = str(tmp_path / "x.parquet")
    write([thought(), called()], target, format="parquet")
    first, second = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert (first["reasoning"], first["tool_calls"]) == ("Hm,\n50 % of it.", None)
    assert orjson.loads(second["tool_calls"]) == CALLS


def test_given_the_same_when_written_for_openai_then_the_message_has_them() -> None:
    first, second, third = map(
        orjson.loads,
        openai_batch.lines([thought(), called(), result(line=3, request=CHAT)], batch()),
    )
    choice = first["response"]["body"]["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": "Hi there",
        "refusal": None,
        "reasoning_content": "Hm,\n50 % of it.",
    }
    choice = second["response"]["body"]["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == CALLS
    assert choice["message"]["content"] is None
    plain = third["response"]["body"]["choices"][0]["message"]
    assert plain == {"role": "assistant", "content": "Hi there", "refusal": None}


def test_given_an_answer_cut_in_its_thinking_when_written_for_openai_then_its_text_is_empty() -> (
    None
):
    (line,) = openai_batch.lines([thought(text="", finish_reason="length")], batch())
    message = orjson.loads(line)["response"]["body"]["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("", "Hm,\n50 % of it.")


def test_given_a_table_for_people_when_drawn_then_it_says_what_there_is_to_say() -> None:
    assert _outcome(thought()) == "Hi there"
    assert _outcome(called()) == 'weather({"city": "Zürich"})'
    assert _outcome(called(text="I look.")) == 'I look.\nweather({"city": "Zürich"})'
    assert _outcome(thought(text="")) == "(thinking) Hm,\n50 % of it."


def test_table_shows_each_sample_with_its_prompt_of_a_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    several = {"prompts": ["First?", [5, 6]], "params": {"n": 2}}
    print_table(result(sample=sample, text=f"text{sample}", request=several) for sample in range(4))
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "text" in line][1:]
    shown = [(" ".join(row[row.index(f"text{at}") - 2 : -2])) for at, row in enumerate(rows)]
    assert [("First?" in prompt, "[5, 6]" in prompt) for prompt in shown] == [
        (True, False), (True, False), (False, True), (False, True),
    ]  # fmt: skip
