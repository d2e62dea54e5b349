"""From a real database to a file: every kind of ending a job can have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from db.database import Database
from db.queries import batches, outcomes, steering
from db.queries.results import Order, pages, stream
from db.records import Batch
from producer.export import ExportFormat, beside, write, write_pages
from producer.export.layout import layout_of
from tests.support.results import FULL
from tests.support.stored import a_batch, a_claim, a_worker, failed, succeeded


@pytest.fixture
def mixed(database: Database) -> Batch:
    """Line 1 has two samples, 2 failed, 3 was invalid, 4 was cancelled before it ran."""
    batch = a_batch(database, 4, chunk_size=3, invalid=[3])
    worker = a_worker(database)
    claim = a_claim(database, worker)
    assert claim is not None
    with database.write() as connection:
        written = [failed(claim, 2), succeeded(claim, 1, "one", "=two")]
        assert outcomes.record(connection, written, worker=worker) == 2
        steering.begin_cancel(connection, batch.id)
    with database.write() as connection:
        steering.finish_cancel(connection, batch.key)
        return batches.get(connection, batch.id)


def exported(
    database: Database, batch: Batch, folder: Path, format_: ExportFormat, order: Order
) -> list[dict[str, Any]]:
    target = folder / "out.jsonl"
    results = stream(database, batch, order=order, with_request=True)
    count = write(results, target, format=format_, batch=batch, options=FULL)
    found = [json.loads(line) for line in target.read_bytes().splitlines()]
    assert len(found) == count
    return found


@pytest.mark.parametrize("order", ["input", "finished"])
def test_given_a_mixed_batch_when_exported_then_each_sample_and_failure_is_a_record(
    order: Order, database: Database, mixed: Batch, tmp_path: Path
) -> None:
    records = exported(database, mixed, tmp_path, "jsonl", order)
    if order == "finished":
        records.sort(key=lambda record: (record["line"], record["sample"]))
    told = [(r["line"], r["sample"], r["state"], r["text"]) for r in records]
    assert told == [
        (1, 0, "succeeded", "one"),
        (1, 1, "succeeded", "=two"),
        (2, 0, "failed", None),
        (3, 0, "failed", None),
        (4, 0, "cancelled", None),
    ]
    assert records[2]["error"] == {"code": "broken", "message": "it broke"}
    assert records[0]["prompt"] == "prompt 1"


@pytest.mark.parametrize("format_", ["jsonl", "csv", "openai"])
@pytest.mark.parametrize("order", ["input", "finished"])
def test_given_a_mixed_batch_when_written_in_pages_then_the_bytes_are_those_of_its_records(
    order: Order,
    format_: ExportFormat,
    database: Database,
    mixed: Batch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(beside, "FIRST", 1)
    monkeypatch.setattr("db.queries.results._PAGE", 1)
    paged, single = tmp_path / "paged", tmp_path / "single"
    found = pages(database, mixed, order=order, with_request=True)
    layout = layout_of(mixed, FULL, documents=format_ == "jsonl")
    count = write_pages(found, paged, format=format_, layout=layout, batch=mixed, beside=True)
    found_too = stream(database, mixed, order=order, with_request=True)
    assert write(found_too, single, format=format_, batch=mixed, options=FULL) == count
    assert paged.read_bytes() == single.read_bytes()


@pytest.mark.parametrize("order", ["input", "finished"])
def test_given_a_mixed_batch_when_exported_for_openai_then_each_job_is_a_line(
    order: Order, database: Database, mixed: Batch, tmp_path: Path
) -> None:
    lines = exported(database, mixed, tmp_path, "openai", order)
    by_id = {line["custom_id"].rpartition("-")[2]: line for line in lines}
    assert len(lines) == len(by_id) == 4
    assert [choice["text"] for choice in by_id["1"]["response"]["body"]["choices"]] == [
        "one",
        "=two",
    ]
    assert by_id["2"]["error"]["code"] == "broken"
    assert by_id["3"]["response"]["status_code"] == 400
    assert by_id["4"]["error"]["code"] == "batch_cancelled"
