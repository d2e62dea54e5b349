"""Input rows as they are stored: small, and nothing of a value lost."""

from __future__ import annotations

import math
import pickle

import pytest

from db.input_columns import ABSENT, InputColumn, decoded_rows, header_of, stored_header


def test_header_survives_storage() -> None:
    columns = (InputColumn("id", "int64"), InputColumn("tags", "list<item: string>", "AAAA"))
    assert header_of(stored_header(columns)) == columns


def test_header_without_columns_is_null() -> None:
    assert stored_header(()) is None
    assert header_of(None) == ()


def test_absent_is_one_object_after_pickling() -> None:
    assert pickle.loads(pickle.dumps([ABSENT]))[0] is ABSENT
    assert not ABSENT


@pytest.mark.parametrize(
    ("type_", "stored", "value"),
    [
        ("int64", "7", 7),
        ("int64", '"7"', 7),
        ("int8", "null", None),
        ("uint64", "18446744073709551615", 2**64 - 1),
        ("double", "0.1", 0.1),
        ("double", '"0.1"', 0.1),
        ("float", '"Infinity"', math.inf),
        ("string", '"007"', "007"),
        ("string", '"null"', "null"),
        ("bool", "true", True),
        ("json", "null", None),
        ("json", '"a"', '"a"'),
        ("json", "1", "1"),
        ("json", '["[1.10, 1e400]"]', "[1.10, 1e400]"),
        ("double", '"7"', 7),
        ("double", '"-0.0"', -0.0),
        ("double", '["1.10"]', 1.1),
        ("list<item: int64>", '["[1,null]"]', [1, None]),
        ("struct<a: int64>", "null", None),
        ("decimal128(10, 2)", '"1.10"', "1.10"),
    ],
)
def test_stored_cell_becomes_its_python_value(type_: str, stored: str, value: object) -> None:
    (row,) = decoded_rows([f"[{stored}]"], [InputColumn("x", type_)])
    assert row == [value]
    assert type(row[0]) is type(value)


def test_row_has_the_width_of_the_header() -> None:
    columns = [InputColumn(name, "string") for name in "abc"]
    assert decoded_rows(['["x"]', '{"0":"y","2":null}', None, "[]"], columns) == [
        ["x", ABSENT, ABSENT],
        ["y", ABSENT, None],
        None,
        [ABSENT] * 3,
    ]
