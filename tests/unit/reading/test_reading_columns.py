"""Columns that are no part of a request: kept with the line, whatever the format."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from db.input_columns import ABSENT, InputColumn, decoded_rows
from db.modes import Mode
from producer.input_columns import header as header_module
from producer.input_columns.header import Header
from producer.reading import BadLine, Line, parse, parse_all, read
from producer.reading.data_keys import is_data
from producer.reading.keys import NAMES


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def columns_in(found: list[Line | BadLine], header: Header) -> dict[str, list[Any]]:
    """The values by column, as a reader of the results gets them."""
    rows = decoded_rows([line.columns for line in found], header.columns)
    return {
        column.name: [None if row is None else row[index] for row in rows]
        for index, column in enumerate(header.columns)
    }


def of_file(name: str, content: str | bytes, **options: Any) -> tuple[list[Line | BadLine], Header]:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    header = Header()
    return list(read([name], header=header, **options)), header


def types_of(header: Header) -> dict[str, str]:
    return {column.name: column.type for column in header.columns}


def test_csv_cells_keep_their_text_and_get_a_type() -> None:
    found, header = of_file(
        "a.csv",
        "prompt,id,zip,price,rate,note,big,zero,mixed,empty\n"
        "a,1,007,1.10,0.5,x,123456789012345678901234567890,-0,7,\n"
        'b,-9223372036854775808,10115,2.25,1e-07,,1,3,2.5,\n"c",,,,,"a ""q""\nb",,,,\n',
    )
    assert [line.request for line in found if isinstance(line, Line)] == [
        {"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}
    ]  # fmt: skip
    assert types_of(header) == {
        "id": "int64", "zip": "string", "price": "double", "rate": "double", "note": "string",
        "big": "string", "zero": "string", "mixed": "double", "empty": "string",
    }  # fmt: skip
    values = columns_in(found, header)
    assert values["id"] == [1, -(2**63), None]
    assert values["zip"] == ["007", "10115", None]
    assert values["price"] == [1.1, 2.25, None]
    assert str(values["price"][0]) == "1.10"
    assert values["rate"] == [0.5, 1e-07, None]
    assert values["note"] == ["x", None, 'a "q"\nb']
    assert values["mixed"] == [7, 2.5, None]
    assert values["empty"] == [None, None, None]


@pytest.mark.parametrize(
    ("cells", "type_"),
    [
        (["1", "2"], "int64"),
        (["1", "01"], "string"),
        (["+1"], "string"),
        (["1_000"], "string"),
        ([" 1"], "string"),
        (["9223372036854775807"], "int64"),
        (["9223372036854775808"], "string"),
        (["1.5", "2.0"], "double"),
        (["1.50"], "double"),
        (["1.5", "1.10", "0.00", "-0.0"], "double"),
        (["01.5"], "string"),
        (["1.23456789012345678901"], "string"),
        ([".5"], "string"),
        (["5."], "string"),
        (["1e5"], "string"),
        (["nan"], "string"),
        (["inf"], "string"),
        (["٣"], "string"),
        (["true"], "string"),
        (["2024-01-01"], "string"),
        (["9007199254740993", "0.5"], "string"),
    ],
)
def test_csv_column_is_of_numbers_only_if_each_text_survives(cells: list[str], type_: str) -> None:
    found, header = of_file("a.csv", "prompt,x\n" + "".join(f"p,{cell}\n" for cell in cells))
    assert types_of(header) == {"x": type_}
    written = [str(value) for value in columns_in(found, header)["x"]]
    assert written == cells


def test_template_keeps_every_column_but_the_custom_id() -> None:
    found, header = of_file(
        "a.tsv", "custom_id\ttext\tmax_tokens\nx\tHallo\t5\n", template="Say {text}"
    )
    assert found == [
        Line("a.tsv", 1, {"prompt": "Say Hallo"}, "x", columns='["Hallo","5"]'),
    ]
    assert types_of(header) == {"text": "string", "max_tokens": "int64"}


def test_declared_custom_id_is_a_column() -> None:
    found, header = of_file(
        "a.csv", "custom_id,text\nx,Hallo\n", template="Say {text}", columns={"custom_id"}
    )
    assert (found[0].custom_id, columns_in(found, header)["custom_id"]) == (None, ["x"])


def test_json_keys_that_are_no_parameters_are_columns() -> None:
    found, header = of_file(
        "a.jsonl",
        '{"prompt": "a", "id": 7, "tags": ["x", 1], "max_tokens": 5}\n'
        '{"id": null, "prompt": "b", "late": true}\n'
        '{"prompt": "c"}\n"d"\n',
    )
    requests = [line.request for line in found if isinstance(line, Line)]
    assert requests[0] == {"prompt": "a", "params": {"max_tokens": 5}}
    assert header.columns == (
        InputColumn("id", "int64"), InputColumn("tags", "json"), InputColumn("late", "bool")
    )  # fmt: skip
    assert [line.columns for line in found] == [
        '[7,["[\\"x\\",1]"]]', '{"0":null,"2":true}', None, None
    ]  # fmt: skip
    rows = decoded_rows([line.columns for line in found], header.columns)
    assert rows == [[7, '["x",1]', ABSENT], [None, ABSENT, True], None, None]


@pytest.mark.parametrize(
    ("values", "type_", "decoded"),
    [
        ([1, 2.5], "double", [1, 2.5]),
        ([2**53 + 1, 0.5], "json", ["9007199254740993", "0.5"]),
        ([1, "1"], "json", ["1", '"1"']),
        ([True, None], "bool", [True, None]),
        ([None], "null", [None]),
        ([2**64, 1], "json", ["18446744073709551616", "1"]),
        ([{"a": [1, None]}], "json", ['{"a":[1,null]}']),
        ([float("nan"), 1.5], "double", [None, 1.5]),
        ([Decimal("1.10"), Decimal(12)], "decimal128(38, 2)", ["1.10", "12"]),
        ([datetime.date(2024, 2, 29)], "date32[day]", ["2024-02-29"]),
        ([b"\xff"], "binary", ["/w=="]),
    ],
)
def test_python_values_keep_their_type(values: list[Any], type_: str, decoded: list[Any]) -> None:
    header = Header()
    found = list(parse_all([{"prompt": "p", "x": value} for value in values], header=header))
    assert types_of(header) == {"x": type_}
    assert columns_in(found, header)["x"] == decoded


def test_parquet_columns_keep_their_arrow_types() -> None:
    stamps = pa.array([datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), None])
    table = pa.table(
        {
            "text": ["a", "b"],
            "id": pa.array([2**53 + 1, None], pa.int64()),
            "at": stamps,
            "price": pa.array([Decimal("1.10"), None]),
            "tags": pa.array([["x"], None]),
        }
    )
    pq.write_table(table, "a.parquet")
    header = Header()
    found = list(read(["a.parquet"], template="{text}", header=header))
    assert types_of(header) == {
        "text": "string", "id": "int64", "at": "timestamp[us, tz=UTC]",
        "price": "decimal128(3, 2)", "tags": "list<element: string>",
    }  # fmt: skip
    values = columns_in(found, header)
    assert values["id"] == [2**53 + 1, None]
    assert values["at"] == ["2024-01-02T00:00:00.000000Z", None]
    assert values["tags"] == [["x"], None]


def test_unstorable_parquet_value_makes_a_bad_row() -> None:
    times = pa.array([10**15, 0], pa.timestamp("ms"))
    rows = {"custom_id": ["x", "y"], "prompt": ["a", "b"], "at": times, "mine": [1, 2]}
    pq.write_table(pa.table(rows), "a.parquet")
    bad, good = read(["a.parquet"])
    assert isinstance(bad, BadLine)
    assert (bad.custom_id, bad.columns) == ("x", "[null,1]")
    assert bad.message.startswith("a.parquet: row 1: column 'at' holds a time outside the years")
    assert isinstance(good, Line)


@pytest.mark.parametrize("name", ["temprature", "topP", "frequency_penalty", "pooling", "system"])
def test_likely_parameter_is_no_data_unless_declared(name: str) -> None:
    bad = parse({"prompt": "a", name: "x"}, source="f", number=1)
    assert isinstance(bad, BadLine)
    assert bad.reason.endswith(f"it is your own data, give --columns {name}")
    line = parse({"prompt": "a", name: "x"}, source="f", number=1, columns={name})
    assert (line.columns, getattr(line, "request", None)) == ('["x"]', {"prompt": "a"})


def test_declared_parameter_of_ours_is_data() -> None:
    header = Header()
    line = parse_all([{"prompt": "a", "temperature": 451}], columns={"temperature"}, header=header)
    assert [found.columns for found in line] == ["[451]"]


@pytest.mark.parametrize("name", ["id", "text", "label", "metadata", "language", "url", ""])
def test_ordinary_word_is_data(name: str) -> None:
    assert is_data(name, NAMES[Mode.GENERATE], ())


@pytest.mark.parametrize("name", ["prompt", "temperature", "max_tokns", "bestOf", 3, None])
def test_parameter_and_near_miss_are_no_data(name: object) -> None:
    assert not is_data(name, NAMES[Mode.GENERATE], ())


def test_bad_line_keeps_the_columns_that_could_be_read() -> None:
    found, _ = of_file("a.csv", "text,id\n,1\nx,2,3\n", template="{text}")
    assert [type(line) for line in found] == [BadLine, BadLine]
    assert [line.columns for line in found] == ['[null,"1"]', None]
    found, _ = of_file("a.jsonl", '{"prompt": "", "id": 1}\n{"id": 2}\n{"pr\n')
    assert [line.columns for line in found] == ["[1]", "[2]", None]


def test_row_above_the_bound_is_a_bad_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_module, "MAX_ROW_BYTES", 20)
    bad = parse({"prompt": "a", "x": "y" * 20}, source="f", number=1, max_prompt_bytes=5)
    assert isinstance(bad, BadLine)
    assert bad.reason == (
        "its columns take 24 bytes, more than 20: remove some, or raise PROMPTMILL_MAX_PROMPT_BYTES"
    )


def test_columns_above_the_bound_are_bad_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_module, "MAX_COLUMNS", 2)
    rows = [{"prompt": "a", "x": 1}, {"prompt": "a", "y": 1}, {"prompt": "a", "z": 1}]
    found = list(parse_all(rows, header=Header()))
    assert [type(line) for line in found] == [Line, Line, BadLine]
    assert isinstance(found[2], BadLine)
    assert "its column 'z' is one more than the 2 columns that a batch may have" in found[2].message


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("\ud800", "column 'x' has a lone surrogate: it is not valid Unicode, remove it"),
        (["\ud800"], "column 'x' has a lone surrogate: it is not valid Unicode, remove it"),
        ({1, 2}, "column 'x' holds a value of the type set: give text, numbers, lists or dicts"),
        (
            [object()],
            "column 'x' holds a value of the type object: give text, numbers, lists or dicts",
        ),
    ],
)
def test_value_that_no_row_holds_is_a_bad_line(value: object, reason: str) -> None:
    bad = parse({"prompt": "a", "x": value}, source="f", number=1)
    assert isinstance(bad, BadLine)
    assert bad.reason == reason


def test_openai_batch_line_has_no_columns() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    item = {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body}
    assert parse(item, source="f", number=1).columns is None
    assert isinstance(parse({**item, "note": "x"}, source="f", number=1), BadLine)


def test_body_beside_a_prompt_is_data() -> None:
    line = parse({"prompt": "a", "body": "text of a mail"}, source="f", number=1)
    assert line.columns == orjson.dumps(["text of a mail"]).decode()


def test_several_files_share_one_header() -> None:
    Path("a.csv").write_text("text,id\nx,1\n")
    pq.write_table(pa.table({"text": ["y"], "n": [2.5], "id": [2]}), "b.parquet")
    header = Header()
    found = list(read(["a.csv", "b.parquet"], template="{text}", header=header))
    assert types_of(header) == {"text": "string", "id": "int64", "n": "double"}
    assert columns_in(found, header) == {
        "text": ["x", "y"], "id": [1, 2], "n": [ABSENT, 2.5]
    }  # fmt: skip
