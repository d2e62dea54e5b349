"""Values of Arrow's columns as requests have them: what is given, what is not."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.reading import BadLine, Line, read
from producer.reading.arrow_values import rows_of
from producer.reading.lines import Flaw

USER = {"role": "user", "content": "one"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(values: list[Any], kind: pa.DataType | None = None) -> list[Any]:
    batch = pa.record_batch({"a": pa.array(values, kind)})
    return [row if isinstance(row, Flaw) else row["a"] for row in rows_of(batch)]


def requests(table: dict[str, Any]) -> list[Any]:
    pq.write_table(pa.table(table), "a.parquet")
    return [line.request if isinstance(line, Line) else line.reason for line in read(["a.parquet"])]


def test_null_of_missing_struct_key_is_removed() -> None:
    values = [{"x": 1, "y": {"z": "a"}}, {"y": {"w": [1]}}, {"x": None, "y": None}, None, {}]
    assert rows(values) == [{"x": 1, "y": {"z": "a"}}, {"y": {"w": [1]}}, {}, None, {}]


def test_null_of_missing_key_in_a_list_of_structs_is_removed() -> None:
    values = [[{"x": 1}, {"y": 2}, None, {}], [], None]
    assert rows(values) == [[{"x": 1}, {"y": 2}, None, {}], [], None]


def test_null_in_a_list_and_in_a_map_is_kept() -> None:
    assert rows([[1, None], [None]]) == [[1, None], [None]]
    kind = pa.map_(pa.string(), pa.struct([("x", pa.int8()), ("y", pa.int8())]))
    assert rows([[("a", {"x": 1}), ("b", None)], None, []], kind) == [
        {"a": {"x": 1}, "b": None},
        None,
        {},
    ]


def test_key_twice_in_a_map_is_a_flaw() -> None:
    (flaw,) = rows([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int8()))
    assert flaw == Flaw("column 'a' has the key 'a' twice in a map: keep one of the two")


@given(st.floats(width=32, allow_nan=False))
def test_float32_is_its_shortest_number(value: float) -> None:
    (read_back,) = rows([value], pa.float32())
    assert pa.scalar(read_back, pa.float32()) == pa.scalar(value, pa.float32())
    assert len(repr(read_back)) <= len(repr(value))


def test_binary_text_is_text_and_other_binary_a_flaw() -> None:
    good, bad = rows(["é".encode(), b"\xff"])
    assert good == "é"
    assert bad == Flaw("column 'a' is binary data and not UTF-8 text: convert it to strings")


def test_dictionary_and_nested_decimals_are_plain() -> None:
    assert rows(pa.array(["x", "y", "x"]).dictionary_encode().to_pylist()) == ["x", "y", "x"]
    ((big, small),) = rows([[Decimal("5.00"), Decimal("1.10")]], pa.list_(pa.decimal128(9, 2)))
    assert (big, str(small)) == (5, "1.10")


def test_binary_prompts_of_parquet_are_read() -> None:
    assert requests({"prompt": [b"one", b"\xff"]}) == [
        {"prompt": "one"},
        "column 'prompt' is binary data and not UTF-8 text: convert it to strings",
    ]


def test_decimal_parameters_of_parquet_are_numbers() -> None:
    tokens = pa.array([Decimal(5), None], pa.decimal128(38, 0))
    heat = pa.array([Decimal("0.70"), Decimal("0.00")], pa.decimal128(10, 2))
    assert requests({"prompt": ["one", "two"], "max_tokens": tokens, "temperature": heat}) == [
        {"prompt": "one", "params": {"max_tokens": 5, "temperature": 0.7}},
        {"prompt": "two", "params": {"temperature": 0.0}},
    ]


def test_narrow_numbers_of_parquet_are_exact() -> None:
    table = {
        "prompt": ["one"],
        "max_tokens": pa.array([7], pa.uint8()),
        "temperature": pa.array([0.7], pa.float32()),
        "seed": pa.array([3.0], pa.float64()),
    }
    params = {"max_tokens": 7, "temperature": 0.7, "seed": 3}
    assert requests(table) == [{"prompt": "one", "params": params}]


def test_null_parameters_in_a_struct_are_not_given() -> None:
    params = [{"max_tokens": 5, "stop": None}, {"max_tokens": None, "stop": ["a"]}]
    assert requests({"prompt": ["one", "two"], "params": params}) == [
        {"prompt": "one", "params": {"max_tokens": 5}},
        {"prompt": "two", "params": {"stop": ["a"]}},
    ]


def test_null_template_arguments_are_not_given() -> None:
    kwargs = [{"enable_thinking": True, "x": None}, {"enable_thinking": None, "x": "y"}]
    assert [
        request["params"]["chat_template_kwargs"]
        for request in requests({"messages": [[USER], [USER]], "chat_template_kwargs": kwargs})
    ] == [{"enable_thinking": True}, {"x": "y"}]


def test_null_prompt_of_parquet_is_a_bad_row() -> None:
    assert requests({"prompt": ["one", None, ""]}) == [
        {"prompt": "one"},
        "the prompt is null: it must be text, in quotes",
        "the prompt is empty: give it text or remove it",
    ]


def test_tools_of_parquet_have_no_invented_nulls() -> None:
    def tool(name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": name, "parameters": parameters}}]

    first = tool("f", {"type": "object", "properties": {"a": {"type": "string"}}})
    second = tool("g", {"type": "object", "properties": {"b": {"enum": ["x"]}}, "required": ["b"]})
    found = requests({"messages": [[USER], [USER]], "tools": [first, second]})
    assert [request["tools"] for request in found] == [first, second]


def test_calls_and_parts_of_parquet_have_no_invented_nulls() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    other = {"id": "2", "type": "function", "function": {"name": "g", "arguments": {"b": "x"}}}
    asked = {"role": "assistant", "tool_calls": [call, other]}
    parts = {"role": "user", "content": [{"type": "text", "text": "one", "image_url": None}]}
    (request,) = requests({"messages": [[USER, asked]]})
    assert request["messages"][1]["tool_calls"] == [call, other]
    (request,) = requests({"messages": [[parts]]})
    assert "image_url" not in str(request)
    assert "None" not in str(request)


def test_json_text_in_a_column_is_read_as_json() -> None:
    format_ = '{"type": "json_schema", "json_schema": {"schema": {"const": null}}}'
    table = {
        "messages": ['[{"role": "user", "content": "one"}]'],
        "response_format": [format_],
        "stop": ["[END]"],
    }
    (request,) = requests(table)
    assert request["messages"] == [USER]
    assert request["params"]["response_format"]["json_schema"] == {"schema": {"const": None}}
    (reason,) = requests({"prompt": ["one"], "params": ['{"n": 1, "n": 2}']})
    assert reason == "column 'params': the key 'n' is given twice: keep one of the two"


@pytest.mark.parametrize("ids", [[7, None], [Decimal(7), None]])
def test_numbers_are_ids_in_parquet(ids: list[Any]) -> None:
    pq.write_table(pa.table({"prompt": ["one", "two"], "custom_id": ids}), "a.parquet")
    assert [line.custom_id for line in read(["a.parquet"])] == ["7", None]


def test_bad_byte_in_a_parquet_row_leaves_the_others() -> None:
    offsets = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0")
    texts = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"a\xffc"))
    good = pa.array(["x", "y", "z"])
    for name, table in (
        ("prompt", {"prompt": texts}),
        ("note", {"prompt": good, "note": texts}),
    ):
        pq.write_table(pa.table(table), "a.parquet")
        first, bad, last = read(["a.parquet"])
        assert isinstance(first, Line)
        assert isinstance(last, Line)
        assert isinstance(bad, BadLine)
        assert bad.message == (
            f"a.parquet: row 2: column '{name}' is not UTF-8 text: write the file again as UTF-8"
        )
