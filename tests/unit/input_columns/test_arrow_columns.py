"""Arrow columns to stored values and back: every type, every value."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest

from producer.input_columns.arrow_arrays import array_of, arrow_array
from producer.input_columns.arrow_cells import Unstorable, cells_of, plain_type
from producer.input_columns.arrow_types import arrow_type, input_column

_DAY = datetime.datetime.fromisoformat("2024-02-29T23:59:59.123456")
_STAMP = 1_709_251_199_123_456_789

ARRAYS: dict[str, pa.Array] = {
    "null": pa.nulls(2),
    "bool": pa.array([True, None, False]),
    "int8": pa.array([-128, None, 127], pa.int8()),
    "int64": pa.array([-(2**63), None, 2**63 - 1]),
    "uint64": pa.array([0, None, 2**64 - 1], pa.uint64()),
    "float16": pa.array([1.5, None, float("inf")], pa.float32()).cast(pa.float16()),
    "float": pa.array([0.1, None, float("nan")], pa.float32()),
    "double": pa.array([0.1, None, float("-inf"), float("nan"), -0.0, 5e-324]),
    "string": pa.array(["007", None, "", "a\0\t\n\\é😀"]),
    "large_string": pa.array(["x", None], pa.large_string()),
    "binary": pa.array([b"\xff\0", None, b""]),
    "fixed binary": pa.array([b"abcd", None], pa.binary(4)),
    "date32": pa.array([_DAY.date(), None]),
    "date64": pa.array([_DAY.date(), None], pa.date64()),
    "time32": pa.array([_DAY.time().replace(microsecond=0), None], pa.time32("s")),
    "time64": pa.array([86_399_999_999_999, None, 5], pa.int64()).cast(pa.time64("ns")),
    "timestamp ns": pa.array([_STAMP, None], pa.int64()).cast(pa.timestamp("ns")),
    "timestamp us": pa.array([_DAY, None], pa.timestamp("us")),
    "timestamp zone": pa.array([_DAY, None], pa.timestamp("us", tz="Asia/Tokyo")),
    "timestamp s": pa.array([0, None, -1], pa.int64()).cast(pa.timestamp("s", tz="UTC")),
    "duration": pa.array([5, None], pa.int64()).cast(pa.duration("us")),
    "decimal": pa.array([Decimal("1.10"), None, Decimal("-0.01")], pa.decimal128(10, 2)),
    "decimal256": pa.array([Decimal("1" * 60 + ".5"), None], pa.decimal256(70, 5)),
    "category": pa.array(["a", None, "b", "a"]).dictionary_encode(),
    "ordered category": pa.DictionaryArray.from_arrays(
        pa.array([0, None, 1], pa.int8()), pa.array([3, 1]), ordered=True
    ),
    "list": pa.array([[1, None], None, []], pa.list_(pa.int64())),
    "large_list": pa.array([["a"], None], pa.large_list(pa.string())),
    "fixed list": pa.array([[1.5, None], None], pa.list_(pa.float64(), 2)),
    "struct": pa.array([{"a": 1, "b": [_DAY]}, None, {"a": None, "b": None}]),
    "empty struct": pa.array([{}, None], pa.struct([])),
    "map": pa.array([[("a", 1.5)], None, [], [("b", None), ("c", 2.0)]],
                    pa.map_(pa.string(), pa.float64())),
    "deep": pa.array([[{"k": [[Decimal("1.10")], None], "n": float("nan")}], None],
                     pa.list_(pa.struct([("k", pa.list_(pa.list_(pa.decimal128(5, 2)))),
                                         ("n", pa.float64())]))),
}  # fmt: skip


def through_json(values: list[Any]) -> list[Any]:
    stored: list[Any] = orjson.loads(orjson.dumps(values))
    return stored


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrow_column_survives_storage(kind: str) -> None:
    array = ARRAYS[kind]
    categories = array.dictionary if isinstance(array, pa.DictionaryArray) else None
    column = input_column("x", array.type, categories)
    assert arrow_type(column) == array.type
    back = arrow_array(column, through_json(cells_of(array)))
    back.validate(full=True)
    assert back.type == array.type
    assert same(back, array)
    if array.type == ARRAYS["ordered category"].type:
        assert back.dictionary.equals(array.dictionary)


def test_order_of_nested_categories_is_not_stored() -> None:
    array = pa.ListArray.from_arrays([0, 2, 3], ARRAYS["ordered category"])
    type_ = plain_type(array.type)
    assert not type_.value_type.ordered
    assert same(array_of(through_json(cells_of(array)), type_), array)


@pytest.mark.parametrize("kind", ["list", "struct", "map", "fixed list", "deep", "category"])
def test_slice_of_an_arrow_column_survives_storage(kind: str) -> None:
    part = pa.concat_arrays([ARRAYS[kind]] * 2).slice(1, 3)
    assert same(array_of(through_json(cells_of(part)), part.type), part)


def same(first: pa.Array, second: pa.Array) -> bool:
    """Equal, NaN and the sign of zero included."""
    return repr(first.to_pylist()) == repr(second.to_pylist())


def test_extension_column_is_stored_as_its_storage() -> None:
    array = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16)))
    plain = plain_type(array.type)
    assert plain == pa.binary(16)
    assert array_of(cells_of(array), plain).to_pylist() == [b"0" * 16, None]


def test_list_view_is_stored_as_a_list() -> None:
    array = pa.array([[1, 2], None, [3]], pa.list_view(pa.int64()))
    assert plain_type(array.type) == pa.list_(pa.int64())
    assert array_of(cells_of(array), pa.list_(pa.int64())).to_pylist() == array.to_pylist()


def test_views_are_stored_as_large_types() -> None:
    views = pa.array(["x", None, "y", "x"], pa.string_view())
    for array, plain in (
        (views, pa.large_string()),
        (pa.array([b"\xff", None], pa.binary_view()), pa.large_binary()),
        (
            pa.DictionaryArray.from_arrays(pa.array([0, None, 2], pa.uint32()), views),
            pa.dictionary(pa.uint32(), pa.large_string()),
        ),
    ):
        assert plain_type(array.type) == plain
        assert array_of(cells_of(array), plain).to_pylist() == array.to_pylist()


def test_nested_extension_is_stored_as_its_storage() -> None:
    type_ = pa.struct([("ids", pa.list_(pa.uuid()))])
    assert plain_type(type_) == pa.struct([("ids", pa.list_(pa.binary(16)))])


def test_run_end_encoded_column_is_stored_by_its_values() -> None:
    array = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", None]))
    assert plain_type(array.type) == pa.string()
    assert cells_of(array) == ["a", "a", None]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (pa.nulls(1, pa.month_day_nano_interval()), "month_day_nano_interval"),
        (pa.array([10**15], pa.int64()).cast(pa.timestamp("s")), "outside the years 0 to 9999"),
        (pa.array([10**8], pa.int32()).cast(pa.date32()), "outside the years 0 to 9999"),
    ],
)
def test_value_that_a_row_cannot_store_is_refused(array: pa.Array, reason: str) -> None:
    with pytest.raises(Unstorable, match=reason):
        cells_of(array)


@pytest.mark.parametrize(
    ("array", "values"),
    [
        ("timestamp zone", ["2024-02-29T23:59:59.123456Z", None]),
        ("timestamp ns", ["2024-02-29T23:59:59.123456789", None]),
        ("decimal", ["1.10", None, "-0.01"]),
        ("time64", ["23:59:59.999999999", None, "00:00:00.000000005"]),
        ("binary", ["/wA=", None, ""]),
        ("duration", [5, None]),
        ("map", [[["a", 1.5]], None, [], [["b", None], ["c", 2.0]]]),
        ("float", [0.10000000149011612, None, "NaN"]),
    ],
)
def test_stored_values_are_what_json_has_for_the_type(array: str, values: list[Any]) -> None:
    assert cells_of(ARRAYS[array]) == values
