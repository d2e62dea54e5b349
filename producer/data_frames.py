"""Arrow tables as data frames of pandas, no digit lost."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

#: pandas' types that have missing values and stay integers.
_NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


def pandas_frame(table: pa.Table) -> pd.DataFrame:
    """The table's values. A column without a missing one has numpy's type, as pandas itself reads
    it; beside a missing one, an integer keeps its digits in pandas' own type (`Int64`).
    """
    frame: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.type in _NULLABLE and not column.null_count:
            frame[name] = frame[name].astype(column.type.to_pandas_dtype())
    return frame
