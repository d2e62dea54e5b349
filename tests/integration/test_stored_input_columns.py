"""Columns in are columns out, through the database: whatever a row holds comes back as it was."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from db.database import Database
from db.input_columns import ABSENT, JSON
from db.queries.jobs import get_job
from db.queries.results import stream
from db.records import Batch, Result
from db.schema import jobs
from db.states import JobState
from producer import intake
from producer.input_columns.arrow_arrays import arrow_array
from producer.intake import Lines
from producer.submission import Order, submit

#: What JSON and UTF-8 can hold.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_infinity=False, allow_nan=False)
    | texts
)
values = scalars | st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["a", "b", "", "promptmill", "temperature", "日本", 'q"\\\n'])
json_rows = st.lists(st.dictionaries(names, values, max_size=5), min_size=1, max_size=6)

#: Values of one Arrow type each.
ARROW_VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats(),
    pa.float32(): st.floats(width=32),
    pa.bool_(): st.booleans(),
    pa.string(): texts,
    pa.binary(): st.binary(max_size=9),
    pa.date32(): st.dates(),
    pa.timestamp("us", tz="Europe/Berlin"): st.datetimes(
        datetime.datetime.fromisoformat("0002-01-01"),
        datetime.datetime.fromisoformat("9998-12-31"),
        timezones=st.just(datetime.UTC),
    ),
    pa.decimal128(20, 3): st.decimals(-(10**16), 10**16, places=3),
    pa.list_(pa.decimal128(9, 2)): st.lists(st.decimals(-999, 999, places=2), max_size=3),
    pa.struct([("k", pa.string()), ("n", pa.int64())]): st.fixed_dictionaries(
        {"k": st.none() | texts, "n": st.none() | st.integers(-9, 9)}
    ),
    pa.dictionary(pa.int32(), pa.string()): texts,
}

quickly = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

OPTIONS: Any = {"max_prompt_bytes": 1 << 20, "given_format": None}


def submitted(database: Database, lines: Lines, **order: Any) -> Batch:
    return submit(database, len, Order(model="org/m", **order), lines, patience=5.0).batch


def results_of(database: Database, batch: Batch) -> list[Result]:
    """All jobs' results, as if each had failed."""
    with database.write() as connection:
        ended = {"state": JobState.FAILED, "finished_at": 1.0, "error_code": "x"}
        connection.execute(update(jobs).where(jobs.c.batch_id == batch.key).values(**ended))
    return list(stream(database, batch))


def of_file(path: Path, **options: Any) -> Lines:
    return intake.from_files([str(path)], **OPTIONS, template="{row}", **options)


@quickly
@given(rows=json_rows)
def test_json_values_survive_the_database(
    database: Database, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({**row, "row": "x"}) + "\n" for row in rows))
    batch = submitted(database, of_file(path))
    for row, result in zip(rows, results_of(database, batch), strict=True):
        assert result.columns is not None
        found = {
            column.name: json.loads(value) if column.type == JSON and value is not None else value
            for column, value in zip(batch.input_columns, result.columns, strict=True)
            if value is not ABSENT
        }
        assert {name: repr(value) for name, value in found.items()} == {
            name: repr(value) for name, value in {**row, "row": "x"}.items()
        }


@quickly
@given(
    cells=st.lists(
        st.integers().map(str)
        | st.floats().map(str)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=9),
        min_size=1,
        max_size=6,
    )
)
def test_csv_text_survives_the_database(
    database: Database, tmp_path: Path, cells: list[str]
) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["row", "x"], *(["r", cell] for cell in cells)])
    batch = submitted(database, of_file(path))
    index = [column.name for column in batch.input_columns].index("x")
    found = [(result.columns or ())[index] for result in results_of(database, batch)]
    assert ["" if value is None else str(value) for value in found] == cells


@quickly
@given(data=st.data())
def test_arrow_values_survive_the_database(
    database: Database, tmp_path: Path, data: st.DataObject
) -> None:
    types = data.draw(st.lists(st.sampled_from(list(ARROW_VALUES)), min_size=1, max_size=4))
    count = data.draw(st.integers(1, 4))
    columns = {"row": pa.array(["x"] * count)}
    for index, type_ in enumerate(types):
        drawn = st.lists(st.none() | ARROW_VALUES[type_], min_size=count, max_size=count)
        columns[f"c{index}"] = pa.array(data.draw(drawn), type_)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    batch = submitted(database, of_file(path))
    rows = [result.columns or () for result in results_of(database, batch)]
    original = pq.read_table(path)
    for column, stored in zip(batch.input_columns, zip(*rows, strict=True), strict=True):
        back = arrow_array(column, stored)
        assert back.type == original.field(column.name).type
        assert repr(back.to_pylist()) == repr(original.column(column.name).to_pylist())


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[[str], Lines]:
    def write(content: str) -> Lines:
        path = tmp_path / "rows.csv"
        path.write_text(content)
        return of_file(path)

    return write


def test_digest_covers_values_names_and_types(
    database: Database, rows_file: Callable[[str], Lines]
) -> None:
    contents = [
        "row,a\nx,1\n",
        "row,a\nx,2\n",
        "row,b\nx,1\n",
        "a,row\n1,x\n",
        "row,a\nx,\n",
        "row\nx\n",
    ]
    digests = {submitted(database, rows_file(content)).digest for content in contents}
    assert len(digests) == len(contents)


def test_same_columns_under_one_name_are_the_same_batch(
    database: Database, rows_file: Callable[[str], Lines]
) -> None:
    first = submitted(database, rows_file("row,a\nx,1\n"), name="n")
    assert submitted(database, rows_file("row,a\nx,1\n"), name="n").id == first.id
    assert submitted(database, rows_file("row,a\nx,2\n"), name="n").id != first.id


def test_digest_without_columns_is_as_before(database: Database) -> None:
    lines = intake.from_source(["a", {"prompt": "b", "custom_id": "c"}], **OPTIONS)
    batch = submitted(database, lines)
    assert batch.input_columns == ()
    assert batch.digest == "85bba176bbdedba2bae4b2af48a3a682027edb2e2880d6b83ff1a9e42d9cf504"


def test_skipped_line_keeps_its_columns(
    database: Database, rows_file: Callable[[str], Lines]
) -> None:
    batch = submitted(database, rows_file("row,id\nx,1\n,2\ny,3,4\n"), skip_invalid=True)
    found = [result.columns for result in results_of(database, batch)]
    assert found == [["x", 1], [None, 2], None]


def test_line_with_a_repeated_custom_id_keeps_its_columns(database: Database) -> None:
    rows: Iterator[Any] = iter(
        [{"prompt": "a", "custom_id": "c", "k": 1}, {"prompt": "b", "custom_id": "c", "k": 2}]
    )
    batch = submitted(database, intake.from_source(rows, **OPTIONS), skip_invalid=True)
    assert [result.columns for result in results_of(database, batch)] == [[1], [2]]


def test_decimal_of_python_comes_back_as_one(database: Database) -> None:
    rows = [{"prompt": "a", "price": Decimal("1.10")}, {"prompt": "b", "price": None}]
    batch = submitted(database, intake.from_source(rows, **OPTIONS))
    stored = [(result.columns or ())[0] for result in results_of(database, batch)]
    array = arrow_array(batch.input_columns[0], stored)
    assert array.to_pylist() == [Decimal("1.10"), None]


def test_one_job_shows_its_columns(database: Database) -> None:
    row = {"prompt": "a", "k": 7, "deep": {"x": [1]}, "gone": None}
    batch = submitted(database, intake.from_source([row, {"prompt": "b", "k": 8}], **OPTIONS))
    with database.read() as connection:
        first, second = (get_job(connection, batch.id, line) for line in (1, 2))
    assert first.columns == {"k": 7, "deep": {"x": [1]}, "gone": None}
    assert second.columns == {"k": 8}
