"""What holds for any text: it comes back from every format as it was."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from db.pages import MadePage
from db.records import Result
from db.states import JobState
from producer.export import ExportFormat, jsonl, write
from producer.export.csv_table import FORMULA_STARTS, guarded
from producer.export.fields import duration, iso
from tests.support.results import FULL, full_layout, result

#: What a database can hold: any Unicode scalars but NUL.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))

chats = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts}),
    min_size=1,
    max_size=3,
)

samples = st.builds(
    result,
    line=st.integers(1, 2**31 - 1),
    custom_id=st.none() | texts,
    text=texts,
    error_message=st.none() | texts,
    request=st.fixed_dictionaries({"prompt": texts}) | st.fixed_dictionaries({"messages": chats}),
)

Row = dict[str, Any]

counts = st.none() | st.integers(0, 2**31 - 1)
#: As clocks give them, and any others up to the year 9999.
times = st.none() | st.integers(0, 2**51).map(lambda micros: micros / 1e6) | st.floats(0, 2.5e11)

#: Any fields at all; few words, so that columns of one value and mixed ones both come up.
anything = st.builds(
    result,
    line=st.integers(1, 2**31 - 1),
    custom_id=st.none() | texts,
    state=st.sampled_from(JobState),
    sample=st.integers(0, 3),
    text=st.sampled_from([None, "", "100 %", "%b", '",\n  "']) | texts,
    finish_reason=st.sampled_from([None, "stop", "length"]),
    prompt_tokens=counts,
    completion_tokens=counts,
    logprobs=st.none() | st.just('[{"token":"%s\\n"}]'),
    model=st.sampled_from(["org/model", "100%/model"]),
    revision=st.none() | texts,
    adapter=st.none() | texts,
    engine=st.none() | texts,
    dtype=st.none() | texts,
    worker=st.none() | texts,
    attempts=st.integers(0, 3),
    started_at=times,
    finished_at=times,
    error_code=st.sampled_from([None, "", "broken"]),
    error_message=st.none() | texts,
    request=st.none()
    | st.fixed_dictionaries({}, optional={"prompt": texts, "messages": chats, "params": texts}),
)


def plain(one: Result) -> bytes:
    """The record as it is documented, without any haste."""
    asked: Row = json.loads(one.request) if one.request is not None else {}
    record: Row = {key: asked[key] for key in ("prompt", "messages") if key in asked}
    record |= {
        "id": one.id,
        "custom_id": one.custom_id,
        "state": one.state.value,
        "sample": one.sample,
        "text": one.text,
        "finish_reason": one.finish_reason,
        "prompt_tokens": one.prompt_tokens,
        "completion_tokens": one.completion_tokens,
    }
    if one.logprobs is not None:
        record["logprobs"] = orjson.Fragment(one.logprobs)
    record |= {
        "error": one.error_code and {"code": one.error_code, "message": one.error_message},
        "line": one.line,
        "model": one.model,
        "revision": one.revision,
        "weights": one.weights,
        "tokenizer": one.tokenizer,
        "adapter": one.adapter,
        "engine": one.engine,
        "engine_version": one.engine_version,
        "backend": one.backend,
        "dtype": one.dtype,
        "device": one.device,
        "hardware": one.hardware,
        "worker": one.worker,
        "seed": one.seed,
        "params": one.params and orjson.Fragment(one.params),
        "attempts": one.attempts,
        "started_at": iso(one.started_at),
        "finished_at": iso(one.finished_at),
        "seconds": duration(one.started_at, one.finished_at),
    }
    return orjson.dumps(record) + b"\n"


@given(st.lists(anything, min_size=1, max_size=6))
@example([result(finished_at=1_760_000_000.25 - less) for less in (0, 3e-7)])  # 0.0 and -0.0
def test_given_any_results_when_written_as_a_page_then_each_is_as_if_written_alone(
    results: list[Result],
) -> None:
    assert jsonl.page_lines(MadePage(results), full_layout()) == b"".join(map(plain, results))


def read_jsonl(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]


def read_csv(file: Path) -> list[Row]:
    with file.open(encoding="utf-8", newline="") as opened:
        return [{**row, "line": int(row["line"])} for row in csv.DictReader(opened, strict=True)]


def read_parquet(file: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(file).to_pylist()
    return rows


def written(
    results: list[Result], format_: ExportFormat, read: Callable[[Path], list[Row]]
) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out"
        assert write(results, target, format=format_, options=FULL, raw=True) == len(results)
        return read(target)


def request_of(sample: Result) -> Row:
    assert sample.request is not None
    request: Row = json.loads(sample.request)
    return request


@settings(max_examples=60, deadline=None)
@given(st.lists(samples, max_size=4))
def test_given_any_texts_when_written_as_jsonl_then_they_come_back(results: list[Result]) -> None:
    rows = written(results, "jsonl", read_jsonl)
    assert [(row["line"], row["custom_id"], row["text"]) for row in rows] == [
        (sample.line, sample.custom_id, sample.text) for sample in results
    ]
    for row, sample in zip(rows, results, strict=True):
        assert {key: row[key] for key in request_of(sample)} == request_of(sample)


@settings(max_examples=60, deadline=None)
@given(st.lists(samples, max_size=4))
def test_given_any_texts_when_written_as_raw_csv_then_they_come_back(results: list[Result]) -> None:
    rows = written(results, "csv", read_csv)
    # CSV has one way to write an empty cell.
    assert [(row["line"], row["custom_id"], row["text"]) for row in rows] == [
        (sample.line, sample.custom_id or "", sample.text) for sample in results
    ]
    for row, sample in zip(rows, results, strict=True):
        request = request_of(sample)
        if "prompt" in request:
            assert row["prompt"] == request["prompt"]
        else:
            assert json.loads(row["messages"]) == request["messages"]


@settings(max_examples=60, deadline=None)
@given(st.lists(samples, max_size=4))
def test_given_any_texts_when_written_as_parquet_then_they_come_back(results: list[Result]) -> None:
    rows = written(results, "parquet", read_parquet)
    assert [(row["line"], row["custom_id"], row["text"]) for row in rows] == [
        (sample.line, sample.custom_id, sample.text) for sample in results
    ]
    for row, sample in zip(rows, results, strict=True):
        request = request_of(sample)
        assert row["prompt"] == request.get("prompt")
        assert json.loads(row["messages"] or "null") == request.get("messages")


@settings(max_examples=60, deadline=None)
@given(st.lists(samples, max_size=4, unique_by=lambda sample: sample.line))
def test_given_any_texts_when_written_for_openai_then_they_come_back(results: list[Result]) -> None:
    rows = written(results, "openai", read_jsonl)
    for row, sample in zip(rows, results, strict=True):
        (choice,) = row["response"]["body"]["choices"]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        assert text == sample.text
        assert row["custom_id"] == (sample.id if sample.custom_id is None else sample.custom_id)


@given(texts)
@example("=1")
@example("'=1")
def test_given_any_cell_when_guarded_then_it_starts_no_formula_and_loses_nothing(text: str) -> None:
    cell = guarded(text)
    assert isinstance(cell, str)
    assert cell[:1] not in FORMULA_STARTS
    assert cell in (text, "'" + text)


@pytest.mark.parametrize("number", [-1, -0.5, None])
def test_given_a_number_when_guarded_then_it_is_left_alone(number: float | None) -> None:
    assert guarded(number) == number
