"""Arrow tables as data frames: no digit is lost beside a missing value."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("pandas")

from producer.data_frames import pandas_frame

LARGE = 2**62 + 1


@pytest.mark.parametrize(
    ("values", "type_", "dtype"),
    [
        ([LARGE, 2], pa.int64(), "int64"),
        ([LARGE, None], pa.int64(), "Int64"),
        ([2**63 + 1, None], pa.uint64(), "UInt64"),
        ([1, None], pa.int32(), "Int32"),
        ([True, False], pa.bool_(), "bool"),
        ([True, None], pa.bool_(), "boolean"),
        ([0.5, None], pa.float64(), "float64"),
    ],
)
def test_column_has_a_dtype_that_holds_its_values(
    values: list[Any], type_: pa.DataType, dtype: str
) -> None:
    frame = pandas_frame(pa.table({"x": pa.array(values, type_)}))
    assert str(frame["x"].dtype) == dtype
    assert frame["x"][0] == values[0]
    assert frame["x"].isna().tolist() == [value is None for value in values]
