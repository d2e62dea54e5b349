"""Fields of JSON answers as columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from db.errors import UsageError
from db.pages import MadePage
from db.records import Batch, Result
from producer.export import write_pages
from producer.export.answer_fields import (
    AnswerField,
    Expansion,
    FieldType,
    data_fields,
    schema_fields,
)
from producer.export.layout import RecordOptions, layout_of
from tests.support.results import BATCH_ID, batch, failure, result

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["good", "bad"]},
        "score": {"type": "integer"},
        "share": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "sure": {"$ref": "#/$defs/yes"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "either": {"type": ["string", "integer"]},
    },
    "$defs": {"yes": {"type": "boolean"}},
}
FIELDS = (
    AnswerField("label", FieldType.TEXT),
    AnswerField("score", FieldType.INTEGER),
    AnswerField("share", FieldType.NUMBER),
    AnswerField("sure", FieldType.BOOLEAN),
    AnswerField("tags", FieldType.JSON),
    AnswerField("either", FieldType.JSON),
)


def structured() -> Batch:
    given = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    return batch(params={"response_format": given})


def answers(*texts: str) -> list[Result]:
    return [result(line, text=text) for line, text in enumerate(texts, start=1)]


def test_schema_gives_names_and_types() -> None:
    assert schema_fields(structured()) == FIELDS
    assert schema_fields(batch(params={"response_format": {"type": "json_object"}})) == ()
    assert schema_fields(batch()) == ()


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ("[1, 2, null]", FieldType.INTEGER),
        ("[1, 2.5]", FieldType.NUMBER),
        ("[9007199254740993, 0.5]", FieldType.JSON),
        ("[9007199254740993]", FieldType.INTEGER),
        ("[18446744073709551616]", FieldType.JSON),
        ('["a", null]', FieldType.TEXT),
        ('["a", 1]', FieldType.JSON),
        ("[true]", FieldType.BOOLEAN),
        ("[true, 1]", FieldType.JSON),
        ("[null]", FieldType.JSON),
        ('[{"a": 1}]', FieldType.JSON),
    ],
)
def test_data_give_types_that_hold_every_value(values: str, type_: FieldType) -> None:
    texts = [f'{{"x": {json.dumps(value)}}}' for value in json.loads(values)]
    assert data_fields([MadePage(answers(*texts))]) == (AnswerField("x", type_),)


def test_too_many_fields_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.export.answer_fields.MAX_FIELDS", 3)
    with pytest.raises(UsageError, match="more than 3 different fields"):
        data_fields([MadePage(answers('{"a": 1, "b": 2, "c": 3, "d": 4}'))])


ROWS = [
    *answers(
        '{"label": "good", "score": 5, "share": 1, "sure": true, "tags": ["a"], "either": "x"}',
        '{"label": "bad", "score": 5.5, "share": null}',
        '{"label": "goo',
        "[1]",
        '{"label": "bad", "more": 1}',
    ),
    failure(6),
]


def written(tmp_path: Path, format_: Any, expansion: Expansion) -> Path:
    target = tmp_path / f"out.{format_}"
    layout = layout_of(
        structured(), RecordOptions(), documents=format_ == "jsonl", expansion=expansion
    )
    write_pages([MadePage(ROWS)], target, format=format_, layout=layout, batch=structured())
    return target


def test_parquet_has_typed_columns_and_counts_what_lacks_them(tmp_path: Path) -> None:
    expansion = Expansion(FIELDS)
    table = pq.read_table(written(tmp_path, "parquet", expansion))
    assert table["label"].to_pylist() == ["good", "bad", None, None, "bad", None]
    assert table["score"].to_pylist() == [5, None, None, None, None, None]
    assert table["tags"].to_pylist()[0] == '["a"]'
    assert table["either"].to_pylist()[0] == '"x"'
    assert table.schema.field("score").type == pa.int64()
    assert table.schema.field("sure").type == pa.bool_()
    lacking, more = expansion.remarks()
    ids = f"{BATCH_ID}-2, {BATCH_ID}-3, {BATCH_ID}-4"
    assert lacking.startswith(f"3 of 5 answers are not JSON of these fields ({ids}): their columns")
    assert more == "1 answer with more fields than the columns: 'text' has them"


def test_jsonl_has_values_and_leaves_out_what_an_answer_lacks(tmp_path: Path) -> None:
    records = [
        json.loads(line)
        for line in written(tmp_path, "jsonl", Expansion(FIELDS)).read_bytes().splitlines()
    ]
    names = [field.name for field in FIELDS]
    assert {name: records[0][name] for name in names} == json.loads(ROWS[0].text or "")
    assert {name: records[1][name] for name in names if name in records[1]} == {
        "label": "bad", "share": None
    }  # fmt: skip
    assert not set(names) & set(records[5])


def test_csv_has_nested_values_as_json(tmp_path: Path) -> None:
    first = written(tmp_path, "csv", Expansion(FIELDS)).read_text("utf-8").splitlines()[1]
    assert first.endswith(',good,5,1,true,"[""a""]","""x"""')
