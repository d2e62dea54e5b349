"""Columns of the input in every format: under their names, of their types, before ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from db.input_columns import ABSENT, InputColumn, decoded_rows
from db.records import Batch, Result
from producer.data_frames import pandas_frame
from producer.export import write
from producer.export.layout import RecordOptions
from tests.support.results import batch, failure, result

COLUMNS = (
    InputColumn("number", "int64"),
    InputColumn("price", "double"),
    InputColumn("note", "string"),
    InputColumn("data", "json"),
    InputColumn("new", "bool"),
)


def rows() -> list[Result]:
    return [
        result(1, columns=[2**62 + 1, 1.5, "=1+1", '{"a": 1.10}', True]),
        result(2, columns=[None, 7, "ä,\n", "1e400", ABSENT]),
        failure(3, columns=[-3, None, "", None, False]),
        failure(4),
    ]


def table() -> Batch:
    return batch(input_columns=COLUMNS)


def test_jsonl_has_values_with_their_digits(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    write(rows(), target, format="jsonl", batch=table())
    starts = [line.partition(b'"id":')[0] for line in target.read_bytes().splitlines()]
    assert starts == [
        b'{"number":4611686018427387905,"price":1.5,"note":"=1+1","data":{"a": 1.10},"new":true,',
        '{"number":null,"price":7,"note":"ä,\\n","data":1e400,'.encode(),
        b'{"number":-3,"price":null,"note":"","data":null,"new":false,',
        b"{",
    ]


def test_number_keeps_the_digits_of_its_json_line(tmp_path: Path) -> None:
    columns = decoded_rows(["[1.10]", "[null]", "[2e5]"], [InputColumn("x", "double")])
    found = [result(line, columns=row) for line, row in enumerate(columns, start=1)]
    given = batch(input_columns=(InputColumn("x", "double"),))
    for name, start in (("a.jsonl", b'{"x":1.10,'), ("a.csv", b"1.10,")):
        write(found, tmp_path / name, format=name.partition(".")[2], batch=given)  # type: ignore[arg-type]
        assert start in (tmp_path / name).read_bytes()
    write(found, tmp_path / "a.parquet", format="parquet", batch=given)
    assert pq.read_table(tmp_path / "a.parquet")["x"].to_pylist() == [1.1, None, 200_000.0]


def test_csv_has_their_text_and_guards_no_number(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    write(rows(), target, format="csv", batch=table())
    text = target.read_bytes().decode()
    assert text.startswith("number,price,note,data,new,id,")
    assert '\r\n4611686018427387905,1.5,\'=1+1,"{""a"": 1.10}",true,bk3' in text
    assert '\r\n,7,"ä,\n",1e400,,bk3' in text
    assert "\r\n-3,,,,false,bk3" in text
    assert "\r\n,,,,,bk3" in text


def test_parquet_has_their_types(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    write(rows(), target, format="parquet", batch=table())
    read = pq.read_table(target)
    assert read.schema.types[:5] == [
        pa.int64(), pa.float64(), pa.string(), pa.string(), pa.bool_()
    ]  # fmt: skip
    assert read["number"].to_pylist() == [2**62 + 1, None, -3, None]
    assert read["data"].to_pylist() == ['{"a": 1.10}', "1e400", None, None]
    assert read["new"].to_pylist() == [True, None, False, None]


def test_pandas_keeps_integers_beside_missing_ones(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    target = tmp_path / "out.parquet"
    write(rows(), target, format="parquet", batch=table(), options=RecordOptions(provenance=True))
    frame = pandas_frame(pq.read_table(target))
    assert str(frame["number"].dtype) == "Int64"
    assert frame["number"][0] == 2**62 + 1
    assert frame["seed"][0] == 2**62 + 1
    assert str(frame["line"].dtype) == "int64"
    assert str(frame["completion_tokens"].dtype) == "Int32"


def test_openai_lines_have_none_of_them(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    request = {"prompt": "P"}
    columns: list[Any] = [1, 2.0, "x", None, True]
    write([result(columns=columns, request=request)], target, format="openai", batch=table())
    assert set(json.loads(target.read_bytes())) == {"id", "custom_id", "response", "error"}


@pytest.mark.parametrize("values", [[1, 1.0, True], [0.0, -0.0, 0], ["a", None, "a"]])
def test_equal_values_of_different_text_stay_apart(values: list[Any], tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    mixed = batch(input_columns=(InputColumn("x", "double"),))
    write([result(columns=[value]) for value in values], target, format="jsonl", batch=mixed)
    read = [json.loads(line)["x"] for line in target.read_bytes().splitlines()]
    assert list(map(repr, read)) == list(map(repr, values))
