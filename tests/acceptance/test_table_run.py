"""A table goes in and comes out with a column more, in one command."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance.mill import Mill
from tests.support.processes import command, environment, eventually

ROWS = 300
HEADER = ["number", "name", "price", "note", "review"]


def table(folder: Path) -> tuple[str, list[list[str]]]:
    rows = [
        [
            str(2**53 + line),
            f"name {line}",
            f"{line}.50",
            "=1+1" if line % 3 else "",
            f"words {line}",
        ]
        for line in range(ROWS)
    ]
    path = folder / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return str(path), rows


def test_table_comes_back_with_a_label_in_every_format(embedded: Mill, tmp_path: Path) -> None:
    source, rows = table(tmp_path)
    labels = tmp_path / "labels.csv"
    done = embedded.run(
        "run", source, "--model", embedded.model, "--template", "Review: {review}", "--raw",
        "-p", "max_tokens=2", "-p", "temperature=0", "-o", str(labels),
        "--output-column", "text=label",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{ROWS} of {ROWS} texts were cut at max_tokens=2: give -p max_tokens=8" in done.stderr
    with labels.open(encoding="utf-8", newline="") as file:
        written = list(csv.reader(file))
    assert written[0] == [
        *HEADER, "id", "custom_id", "state", "label", "finish_reason", "prompt_tokens",
        "completion_tokens", "error_code", "error_message",
    ]  # fmt: skip
    assert [row[:5] for row in written[1:]] == rows
    assert {row[8] for row in written[1:]} == {"Review: words"}

    (batch,) = embedded.client.batches()
    embedded.ok("results", batch.id, "-o", str(tmp_path / "out.parquet"))
    parquet = pq.read_table(tmp_path / "out.parquet")
    assert parquet.column_names[:6] == [*HEADER, "id"]
    assert parquet.schema.field("number").type == pa.int64()
    assert parquet["number"].to_pylist() == [2**53 + line for line in range(ROWS)]

    pytest.importorskip("pandas")
    frame = embedded.client.results(batch.id).to_pandas(names={"text": "label"})
    assert list(frame.columns[:6]) == [*HEADER, "id"]
    assert frame["number"].dtype == "int64"
    assert frame["number"].tolist() == parquet["number"].to_pylist()
    assert set(frame["label"]) == {"Review: words"}


def test_killed_export_of_numbered_files_is_continued(embedded: Mill, tmp_path: Path) -> None:
    rows = pa.table({"text": [f"row {line}" for line in range(8_000)], "line": range(8_000)})
    batch = embedded.client.submit(rows, model=embedded.model, template="{text}")
    embedded.client.cancel(batch.id)
    export = ("results", batch.id, "--rows-per-file", "200", "-o")
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    embedded.ok(*export, str(whole))

    process = embedded.background(*export, str(folder))
    second = folder / "part-00001.parquet"
    eventually(lambda: second.exists() or None, what="a second file")
    process.kill()
    process.communicate()

    assert not (folder / "manifest.json").exists()
    assert len(list(folder.glob("part-*"))) < 40
    kept = second.stat().st_mtime_ns
    embedded.ok(*export, str(folder))
    assert second.stat().st_mtime_ns == kept, "it is not written again"
    names = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in folder.iterdir()) == names
    assert len(names) == 42
    for name in names:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    tables = [pq.read_table(path) for path in sorted(folder.glob("part-*"))]
    assert pa.concat_tables(tables).select(rows.column_names).equals(rows)


def test_run_to_a_pipe_that_closes_ends_as_its_batch_did(embedded: Mill) -> None:
    """The reader has left before the first record: that is no failure of the batch."""

    source = embedded.numbered(3)
    process = subprocess.Popen(
        command("run", source, "--model", embedded.model),
        env=environment(embedded.env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert b"completed: 3 of 3 succeeded" in said
