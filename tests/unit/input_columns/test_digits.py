"""Input columns keep the digits of the numbers in JSON Lines."""

from __future__ import annotations

from db.exact_json import dumps, loads
from db.input_columns import decoded_rows
from producer.input_columns.arrow_arrays import arrow_array
from producer.input_columns.header import Header, InputRow, ValueKind

ROW = '{"price":1.10,"big":123456789012345678901234567890,"huge":1e400,"nested":{"a":[1.50,2]}}'


def test_columns_of_json_lines_keep_their_digits() -> None:
    header = Header()
    stored = header.encoded(InputRow(loads(ROW), ValueKind.PYTHON))
    columns = header.columns
    assert [column.type for column in columns] == ["double", "json", "json", "json"]
    (row,) = decoded_rows([stored], columns)
    assert row is not None
    assert dumps(row[0]) == b"1.10"
    assert row[1:] == ["123456789012345678901234567890", "1e400", '{"a":[1.50,2]}']
    assert arrow_array(columns[0], [row[0]]).to_pylist() == [1.1]
