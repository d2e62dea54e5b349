"""Tables that a program hands over: of each library, with their columns and types."""

from __future__ import annotations

import datetime
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from db.errors import InputError
from db.input_columns import decoded_rows
from producer import intake
from producer.input_columns import arrow_types
from producer.input_columns.arrow_arrays import arrow_array
from producer.reading import BadLine, Line, tables

OPTIONS: Any = {"max_prompt_bytes": 1 << 20, "given_format": None}


class Read:
    """A source as it was read."""

    def __init__(self, source: Any, **options: Any) -> None:
        lines = intake.from_source(source, **{**OPTIONS, **options})
        reading = lines.read()
        self.lines = list(reading.lines)
        self.repeatable = lines.repeatable
        self.types = {column.name: column.type for column in reading.header.columns}
        rows = decoded_rows([line.columns for line in self.lines], reading.header.columns)
        self.values = {
            name: [row[index] for row in rows if row is not None]
            for index, name in enumerate(self.types)
        }
        self.columns = {column.name: column for column in reading.header.columns}
        self.requests = [line.request for line in self.lines if isinstance(line, Line)]

    def array(self, name: str) -> pa.Array:
        """The column as Arrow."""
        return arrow_array(self.columns[name], self.values[name])


TABLE = pa.table(
    {
        "text": ["a", "b"],
        "id": pa.array([2**53 + 1, None], pa.int64()),
        "at": pa.array([datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), None]),
        "price": pa.array([Decimal("1.10"), None]),
        "label": pa.array(["x", "y"]).dictionary_encode(),
    }
)


def reader() -> pa.RecordBatchReader:
    return TABLE.to_reader()


@pytest.mark.parametrize(
    ("make", "repeatable"),
    [
        (lambda: TABLE, True),
        (lambda: TABLE.to_batches()[0], True),
        (reader, False),
        (lambda: SimpleStream(TABLE), True),
    ],
)
def test_arrow_table_keeps_columns_and_types(make: Callable[[], Any], repeatable: bool) -> None:
    read = Read(make(), template="Say {text}")
    assert read.requests == [{"prompt": "Say a"}, {"prompt": "Say b"}]
    assert read.types == {
        "text": "string", "id": "int64", "at": "timestamp[us, tz=UTC]",
        "price": "decimal128(3, 2)",
        "label": "dictionary<values=string, indices=int32, ordered=0>",
    }  # fmt: skip
    assert read.values["id"] == [2**53 + 1, None]
    assert read.repeatable is repeatable


class SimpleStream:
    """What any other library gives: Arrow's PyCapsule interface."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def test_pandas_frame_keeps_columns_and_types() -> None:
    frame = pd.DataFrame(
        {
            "text": ["a", "b"],
            "id": pd.array([2**53 + 1, None], "Int64"),
            "score": [0.5, float("nan")],
            "at": pd.Series([pd.Timestamp("2024-01-02T03:04:05.123456789"), pd.NaT]),
            "label": pd.Categorical(["x", None]),
            "flag": [True, False],
            "size": [1, 2],
        }
    )
    read = Read(frame, template="Say {text}")
    assert read.requests == [{"prompt": "Say a"}, {"prompt": "Say b"}]
    assert {name: read.types[name] for name in ("id", "score", "flag", "size")} == {
        "id": "int64", "score": "double", "flag": "bool", "size": "int64"
    }  # fmt: skip
    assert read.types["at"].startswith("timestamp[")
    assert read.types["label"].startswith("dictionary<values=")
    assert read.values["id"] == [2**53 + 1, None]
    assert read.values["score"] == [0.5, None]
    assert read.values["at"] == ["2024-01-02T03:04:05.123456789", None]
    assert read.values["label"] == ["x", None]
    assert read.repeatable


def test_pandas_frame_of_requests_gives_what_is_there() -> None:
    frame = pd.DataFrame({"prompt": ["a", "b"], "max_tokens": [5, None], "id": [1, 2]})
    read = Read(frame)
    assert read.requests == [{"prompt": "a", "params": {"max_tokens": 5}}, {"prompt": "b"}]
    assert read.values == {"id": [1, 2]}


def test_pandas_column_of_several_types_is_json() -> None:
    frame = pd.DataFrame(
        {
            "text": ["a", "b", "c"],
            "any": [1, "x", None],
            "deep": [{"k": 1}, {"j": [2]}, None],
            "at": pd.to_datetime(["2024-01-02"] * 3),
            "n": pd.array([1, None, 3], "Int64"),
        }
    )
    read = Read(frame, template="{text}")
    assert (read.types["any"], read.types["deep"]) == ("json", "json")
    assert read.values["any"] == ["1", '"x"', None]
    assert read.values["deep"] == ['{"k":1}', '{"j":[2]}', None]
    assert (read.types["n"], read.values["n"]) == ("int64", [1, None, 3])
    assert read.values["at"] == ["2024-01-02T00:00:00.000000"] * 3


def test_pandas_column_of_lists_leaves_other_columns_their_types() -> None:
    frame = pd.DataFrame(
        {
            "text": ["a", "b"],
            "tags": [["x"], None],
            "big": np.array([2**64 - 1, 0], "uint64"),
            "small": np.array([1, 2], "int8"),
            "at": pd.to_datetime(["2024-01-02", "2024-01-03"]).tz_localize("Europe/Berlin"),
            "took": pd.to_timedelta([1, 2], unit="ns"),
            "label": pd.Categorical(["x", "y"]),
        }
    )
    read = Read(frame, template="{text}")
    assert (read.types["tags"], read.values["tags"]) == ("json", ['["x"]', None])
    assert (read.types["big"], read.values["big"]) == ("uint64", [2**64 - 1, 0])
    assert read.types["small"] == "int8"
    assert read.types["at"].endswith("tz=Europe/Berlin]")
    assert (read.types["took"], read.values["took"]) == ("duration[ns]", [1, 2])
    assert read.types["label"].startswith("dictionary<")


def test_pandas_requests_beside_a_column_of_lists() -> None:
    frame = pd.DataFrame(
        {"prompt": [[1, 2], "b"], "max_tokens": [5, None], "stop": [["x"], None], "mine": [1, 2]}
    )
    read = Read(frame)
    assert read.requests == [
        {"prompt": [1, 2], "params": {"max_tokens": 5, "stop": ["x"]}},
        {"prompt": "b"},
    ]
    assert read.values == {"mine": [1, 2]}


DAY = datetime.date(2024, 1, 2)
HOUR = datetime.datetime.combine(DAY, datetime.time(3))


@pytest.mark.parametrize(
    ("values", "kind", "read_as"),
    [
        ([DAY, HOUR], "json", ['"2024-01-02"', '"2024-01-02T03:00:00"']),
        (
            [HOUR, HOUR.replace(tzinfo=datetime.UTC)],
            "json",
            ['"2024-01-02T03:00:00"', '"2024-01-02T03:00:00Z"'],
        ),
        ([pd.Timedelta(7, "ns"), None], "duration[ns]", [7, None]),
        ([datetime.timedelta(seconds=1)], "duration[us]", [1_000_000]),
        ([np.timedelta64(7, "ns")], "duration[ns]", [7]),
        (
            [np.datetime64("2024-01-02T03:04:05.123456789")],
            "timestamp[ns]",
            ["2024-01-02T03:04:05.123456789"],
        ),
        ([DAY, None], "date32[day]", ["2024-01-02", None]),
        ([Decimal("1.10"), None], "decimal128(3, 2)", ["1.10", None]),
        (
            [[1.5, float("inf")], {"k": float("-inf")}],
            "json",
            ['[1.5,"Infinity"]', '{"k":"-Infinity"}'],
        ),
        ([[None, float("nan")], 1], "json", ["[null,null]", "1"]),
    ],
)
def test_pandas_objects_lose_nothing(values: list[Any], kind: str, read_as: list[Any]) -> None:
    frame = pd.DataFrame({"text": ["a"] * len(values), "x": pd.Series(values, dtype=object)})
    read = Read(frame, template="{text}")
    assert (read.types["x"], read.values["x"]) == (kind, read_as)


def test_pandas_times_with_a_zone_are_refused() -> None:
    time = datetime.time(1, tzinfo=datetime.UTC)
    (bad,) = Read(pd.DataFrame({"text": ["a"], "x": [time]}), template="{text}").lines
    assert isinstance(bad, BadLine)
    assert "column 'x' holds a value of the type time: give text" in bad.message


def test_pandas_type_is_that_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_ROWS", 2)
    column = [None, None, 7, None, 9]
    frame = pd.DataFrame({"text": list("abcde"), "n": pd.Series(column, dtype=object)})
    read = Read(frame, template="{text}")
    assert (read.types["n"], read.values["n"]) == ("int64", column)
    assert [line.number for line in read.lines] == [1, 2, 3, 4, 5]


SIZES = pd.CategoricalDtype(["low", "mid", "high"], ordered=True)


def test_ordered_categories_keep_their_order_and_those_without_a_row() -> None:
    frame = pd.DataFrame(
        {"text": list("abc"), "size": pd.Series(["high", "low", None], dtype=SIZES)}
    )
    array = Read(frame, template="{text}").array("size")
    assert array.type.ordered
    assert array.dictionary.to_pylist() == ["low", "mid", "high"]
    assert array.to_pylist() == ["high", "low", None]


def test_categories_in_two_orders_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_ROWS", 1)
    batches = [
        pa.record_batch(
            {
                "text": ["a"],
                "size": pa.DictionaryArray.from_arrays([0], categories, ordered=True),
            }
        )
        for categories in (["low", "high"], ["high", "low"])
    ]
    array = Read(pa.Table.from_batches(batches), template="{text}").array("size")
    assert not array.type.ordered
    assert array.to_pylist() == ["low", "high"]


def test_order_of_very_many_categories_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_types, "MAX_ORDERED", 2)
    frame = pd.DataFrame({"text": ["a"], "size": pd.Series(["low"], dtype=SIZES)})
    array = Read(frame, template="{text}").array("size")
    assert (array.type.ordered, array.to_pylist()) == (False, ["low"])


@pytest.mark.parametrize(
    ("index", "count", "stored"),
    [
        (pa.int8(), 64, "int8"),
        (pa.int8(), 65, "int32"),
        (pa.uint8(), 128, "uint8"),
        (pa.uint8(), 129, "int32"),
    ],
)
def test_indices_have_room_for_the_categories_of_all_pieces(
    index: pa.DataType, count: int, stored: str
) -> None:
    batches = []
    for piece in "ab":
        labels = [f"{piece}{number}" for number in range(count)]
        categories = pa.DictionaryArray.from_arrays(pa.array(range(count), index), labels)
        batches.append(pa.record_batch({"text": labels, "label": categories}))
    read = Read(pa.Table.from_batches(batches), template="{text}")
    array = read.array("label")
    assert str(array.type.index_type) == stored
    assert array.to_pylist() == read.values["text"]


LABELS = pa.array(["x", "y"])


@pytest.mark.parametrize(
    ("types", "kind"),
    [
        (
            [pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int16(), pa.string())],
            "dictionary<values=string, indices=int32, ordered=0>",
        ),
        ([pa.dictionary(pa.int8(), pa.string()), pa.string()], "string"),
        ([pa.string(), pa.dictionary(pa.int8(), pa.large_string())], "string"),
    ],
)
def test_files_may_differ_in_how_categories_are_stored(
    types: list[pa.DataType], kind: str, tmp_path: Path
) -> None:
    for number, type_ in enumerate(types):
        labels = LABELS.cast(pa.large_string()) if "large" in str(type_) else LABELS
        table = pa.table({"text": LABELS, "label": labels.dictionary_encode().cast(type_)})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    read = Read(str(tmp_path / "*.parquet"), template="{text}")
    assert read.types["label"] == kind
    assert read.array("label").to_pylist() == ["x", "y"] * 2


def test_named_index_of_a_frame_is_a_column() -> None:
    frame = pd.DataFrame({"text": ["a"]}, index=pd.Index([7], name="id"))
    assert Read(frame, template="{text}").values == {"id": [7], "text": ["a"]}
    assert Read(frame.reset_index(drop=True), template="{text}").values == {"text": ["a"]}


def test_index_and_column_of_one_name_are_refused() -> None:
    frame = pd.DataFrame({"text": ["a"]}, index=pd.Index([7], name="text"))
    with pytest.raises(InputError, match="<table>: the column 'text' is there twice: rename one"):
        Read(frame, template="{text}")


def test_frame_whose_columns_are_numbers_is_read() -> None:
    frame = pd.DataFrame([["a", 1]])
    assert Read(frame, template="{0}").values == {"0": ["a"], "1": [1]}


def test_series_of_texts_is_a_list_of_prompts() -> None:
    assert Read(pd.Series(["a", "b"])).requests == [{"prompt": "a"}, {"prompt": "b"}]


def test_polars_frame_keeps_columns_and_types() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(
        {"text": ["a", "b"], "id": [2**53 + 1, None], "tags": [["x"], None]},
        schema_overrides={"id": polars.Int64},
    ).with_columns(label=polars.col("text").cast(polars.Categorical))
    read = Read(frame, template="Say {text}")
    assert read.requests == [{"prompt": "Say a"}, {"prompt": "Say b"}]
    assert read.values["id"] == [2**53 + 1, None]
    assert read.values["tags"] == [["x"], None]
    assert read.values["label"] == ["a", "b"]
    assert Read(polars.Series(["a"])).requests == [{"prompt": "a"}]


def test_enum_of_polars_keeps_its_categories_in_their_order() -> None:
    polars = pytest.importorskip("polars")
    sizes = polars.Series(["high", None], dtype=polars.Enum(["low", "mid", "high"]))
    array = Read(polars.DataFrame({"text": ["a", "b"], "size": sizes}), template="{text}").array(
        "size"
    )
    assert array.dictionary.to_pylist() == ["low", "mid", "high"]
    assert array.to_pylist() == ["high", None]


def test_dataset_of_hugging_face_keeps_columns_and_types() -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"text": ["a", "b"], "id": [2**53 + 1, None]})
    for source in (dataset, dataset.to_iterable_dataset()):
        read = Read(source, template="Say {text}")
        assert read.requests == [{"prompt": "Say a"}, {"prompt": "Say b"}]
        assert (read.types["id"], read.values["id"]) == ("int64", [2**53 + 1, None])
    with pytest.raises(TypeError, match="a DatasetDict without 'prompt' or 'messages'"):
        Read(datasets.DatasetDict({"train": dataset}))


def test_dataset_is_read_in_arrow_batches() -> None:
    """As of `datasets`, which the tests do not need."""
    asked: list[Any] = []

    class Dataset:
        __module__ = "datasets.arrow_dataset"

        def with_format(self, kind: str) -> Any:
            asked.append(kind)
            return SimpleNamespace(iter=lambda batch_size: iter([TABLE[:1], TABLE[1:]]))

    read = Read(Dataset(), template="{text}")
    assert asked == ["arrow"]
    assert read.values["id"] == [2**53 + 1, None]
    assert [line.number for line in read.lines] == [1, 2]


def test_table_that_does_not_fit_the_template_is_refused() -> None:
    with pytest.raises(InputError, match="<table>: no column 'x' for the template"):
        Read(TABLE, template="{x}")
    with pytest.raises(InputError, match="<table>: no column 'prompt' among 'text', 'id'"):
        Read(TABLE)


def test_bad_row_of_a_table_is_named_by_its_number() -> None:
    bad = Read(pa.table({"text": ["a", None], "id": [1, 2]}), template="{text}").lines[1]
    assert isinstance(bad, BadLine)
    assert bad.message.startswith("<table>: row 2: column 'text' is empty")
    assert bad.columns == "[null,2]"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (b"a prompt", "bytes"),
        ({"a", "b"}, "set"),
        ({"a": 1}.keys(), "dict_keys"),
        (7, "int"),
        (None, "NoneType"),
        (SimpleNamespace(columns=[], dtypes=[], __iter__=None), "SimpleNamespace"),
        (pa.array(["a"]), "StringArray"),
    ],
)
def test_anything_else_is_a_type_error_that_says_what_is_accepted(source: Any, kind: str) -> None:
    with pytest.raises(TypeError) as caught:
        Read(source)
    assert str(caught.value) == (
        f"a {kind} can't be submitted: give a path, URL or glob of a file, a table (pandas, "
        "polars, pyarrow, datasets), or a list or generator of texts and dicts"
    )


def test_dict_of_columns_is_no_request() -> None:
    with pytest.raises(TypeError, match=r"give pyarrow\.table\(it\)"):
        Read({"question": ["a", "b"]})


def test_open_file_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    with path.open() as file, pytest.raises(TypeError, match="a TextIOWrapper can't be submitted"):
        Read(file)


def test_frame_takes_no_memory_beside_its_own() -> None:
    frame = pd.DataFrame({"prompt": ["x" * 1_000] * 20_000, "id": range(20_000)})
    tracemalloc.start()
    lines = intake.from_source(frame, **OPTIONS).read().lines
    assert sum(1 for _ in lines) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All texts are 20 MB.
    assert peak < 5_000_000


def test_pandas_prompts_of_lists_and_arrays_are_token_ids_or_lists() -> None:
    nested = np.array([np.array([1, 2]), np.array([3])], dtype=object)
    for prompts in ([[1, 2], [3]], [np.array([1, 2]), np.array([3])]):
        frame = pd.DataFrame({"prompt": prompts})
        assert Read(frame).requests == [{"prompt": [1, 2]}, {"prompt": [3]}]
    frame = pd.DataFrame({"prompt": [nested, np.array(["one", "two"], dtype=object)]})
    assert Read(frame).requests == [{"prompts": [[1, 2], [3]]}, {"prompts": ["one", "two"]}]
