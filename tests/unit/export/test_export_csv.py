"""CSV: columns, quoting, and cells that a spreadsheet would run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from db.records import Result
from producer.export import write
from tests.support.results import FULL, LOGPROBS, failure, result


def rows(tmp_path: Path, *results: Result, raw: bool = False) -> list[dict[str, str]]:
    target = tmp_path / "out.csv"
    count = write(results, target, format="csv", options=FULL, raw=raw)
    assert count == len(results)
    with target.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_given_a_sample_and_a_failure_when_written_then_each_is_a_flat_row(tmp_path: Path) -> None:
    sample = result(2, custom_id="mine", logprobs=json.dumps(LOGPROBS), request={"prompt": "P"})
    first, second = rows(tmp_path, sample, failure(3))
    assert first["custom_id"] == "mine"
    assert first["line"] == "2"
    assert first["seconds"] == "1.25"
    assert first["finished_at"] == "2025-10-09T08:53:21.500Z"
    assert first["prompt"] == "P"
    assert (first["weights"], first["seed"]) == ("5f" * 32, str(2**62 + 1))
    assert json.loads(first["params"]) == {"max_tokens": 8, "temperature": 1.0}
    assert first["error_code"] == ""
    assert json.loads(first["logprobs"]) == LOGPROBS
    assert (second["state"], second["text"]) == ("failed", "")
    assert (second["error_code"], second["error_message"]) == (
        "engine_error",
        "it broke: try again",
    )


def test_given_a_chat_when_written_then_its_messages_are_json(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": 'Grüß, "Gott"\n'}]
    (row,) = rows(tmp_path, result(request={"messages": messages}))
    assert (row["prompt"], json.loads(row["messages"])) == ("", messages)


def test_given_no_results_when_written_then_there_is_a_header(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    assert write([], target, format="csv") == 0
    assert target.read_bytes() == (
        b"id,custom_id,state,sample,text,logprob,perplexity,embedding,reasoning,tool_calls,"
        b"finish_reason,prompt_tokens,completion_tokens,logprobs,error_code,error_message\r\n"
    )


@pytest.mark.parametrize("text", ['a,"b"', "a\nb", "a\r\nb", "a\rb", " a ", "", "\n", "'=x"])
def test_given_awkward_text_when_written_then_it_comes_back(text: str, tmp_path: Path) -> None:
    (row,) = rows(tmp_path, result(text=text))
    assert row["text"] == text


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
@pytest.mark.parametrize("column", ["text", "custom_id", "error_message", "model"])
def test_given_a_cell_like_a_formula_when_written_then_it_is_guarded_unless_raw(
    start: str, column: str, tmp_path: Path
) -> None:
    text = start + "HYPERLINK(1)"
    changes: dict[str, Any] = {column: text}
    dangerous = result(**changes)
    assert rows(tmp_path, dangerous)[0][column] == "'" + text
    assert rows(tmp_path, dangerous, raw=True)[0][column] == text


def test_given_a_prompt_like_a_formula_when_written_then_it_is_guarded(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, result(request={"prompt": "=1+1"}))
    assert row["prompt"] == "'=1+1"


def test_given_a_negative_number_when_written_then_it_stays_a_number(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, result(started_at=1_760_000_002.0))
    assert row["seconds"] == "-0.5"
