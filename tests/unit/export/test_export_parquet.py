"""Parquet: types, row groups, metadata, and files that are cut off."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from db.records import Result
from producer.export import write
from producer.export.arrow_table import schema_of
from producer.export.layout import RecordOptions, layout_of
from tests.support.results import (
    BATCH_ID,
    FULL,
    LOGPROBS,
    batch,
    failure,
    full_layout,
    many,
    result,
)


def test_given_results_when_written_then_columns_have_their_types(tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    messages = [{"role": "user", "content": "Hi"}]
    results = [
        result(1, logprobs=json.dumps(LOGPROBS), request={"prompt": "P"}),
        failure(2, request={"messages": messages}),
    ]
    assert write(results, target, format="parquet", options=FULL) == 2
    table = pq.read_table(target)
    assert table.schema.equals(schema_of(full_layout(documents=False)))
    first, second = table.to_pylist()
    assert first["started_at"] == datetime(2025, 10, 9, 8, 53, 20, 250_000, UTC)
    assert (first["line"], first["prompt_tokens"], first["seconds"]) == (1, 3, 1.25)
    whole = {"bytes": None}  # every token is whole characters
    assert first["logprobs"] == [
        {**token, **whole, "top": [{**top, **whole} for top in token["top"]]} for token in LOGPROBS
    ]
    assert (first["weights"], first["seed"]) == ("5f" * 32, 2**62 + 1)
    assert json.loads(first["params"]) == {"max_tokens": 8, "temperature": 1.0}
    assert (first["prompt"], first["messages"]) == ("P", None)
    assert (second["state"], second["error_code"]) == ("failed", "engine_error")
    assert (second["text"], second["started_at"], second["logprobs"]) == (None, None, None)
    assert json.loads(second["messages"]) == messages


def test_given_no_results_when_written_then_the_schema_is_there(tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    assert write([], target, format="parquet") == 0
    lean = layout_of(None, RecordOptions(), documents=False)
    assert pq.read_table(target).schema.equals(schema_of(lean))


def test_given_many_results_when_written_then_row_groups_are_bounded(tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    write(many(20_000), target, format="parquet")
    found = pq.ParquetFile(target).metadata
    groups = [found.row_group(index).num_rows for index in range(found.num_row_groups)]
    assert groups == [8_192, 8_192, 3_616]
    assert found.row_group(0).column(0).compression == "ZSTD"


def test_given_long_texts_when_written_then_a_row_group_holds_few(tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    write(many(40, text="x" * (1 << 20)), target, format="parquet")
    found = pq.ParquetFile(target).metadata
    assert [found.row_group(index).num_rows for index in range(found.num_row_groups)] == [
        16, 16, 8,
    ]  # fmt: skip


def test_given_the_batch_when_written_then_the_metadata_names_it(tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    write(many(2), target, format="parquet", batch=batch())
    metadata = pq.read_schema(target).metadata
    assert metadata[b"promptmill.batch"] == BATCH_ID.encode()
    assert metadata[b"promptmill.name"] == b"night run"
    assert metadata[b"promptmill.mode"] == b"generate"


def test_given_a_minus_infinite_logprob_when_written_then_it_is_null(tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    stored = '[{"token":"a","token_id":1,"logprob":null,"top":[]}]'
    write([result(logprobs=stored)], target, format="parquet")
    ((token,),) = pq.read_table(target)["logprobs"].to_pylist()
    assert token["logprob"] is None


def test_given_an_error_midway_when_writing_to_a_pipe_then_no_footer_makes_it_look_whole(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)

    def broken() -> Iterator[Result]:
        yield from many(10_000)
        raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError, match="went away"):
        write(broken(), pipe, format="parquet")
    gc.collect()
    content = reader.communicate(timeout=20)[0]
    assert content.startswith(b"PAR1")
    assert not content.endswith(b"PAR1")
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(pa.BufferReader(content))


def test_given_a_piped_stdout_when_parquet_is_written_then_it_is_whole() -> None:
    code = (
        "from producer.export import format_of, write;"
        "from tests.support.results import many;"
        "write(many(3), None, format=format_of(None, 'parquet'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert pq.read_table(pa.BufferReader(done.stdout)).num_rows == 3


def test_given_vectors_with_gaps_when_written_then_each_is_a_list_of_float32(
    tmp_path: Path,
) -> None:
    target = tmp_path / "a.parquet"
    first, last = array("f", [0.1, -2.5]), array("f", [1.0, 2.0, 3.0])
    nothing = {"text": None, "finish_reason": None}
    results = [
        result(1, embedding=first, **nothing),
        failure(2),
        result(3, embedding=last, **nothing),
        result(4, logprob=-6.0, completion_tokens=3, **nothing),
    ]
    write(results, target, format="parquet")
    table = pq.read_table(target)
    assert table.schema.field("embedding").type == pa.list_(pa.float32())
    assert table["embedding"].to_pylist() == [first.tolist(), None, last.tolist(), None]
    assert table["logprob"].to_pylist() == [None, None, None, -6.0]
    assert table["perplexity"].to_pylist()[3] == pytest.approx(math.exp(2))


def test_given_long_vectors_when_written_then_a_row_group_holds_few(tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    vector = array("f", bytes(4 << 20))
    write(many(12, text=None, embedding=vector), target, format="parquet")
    found = pq.ParquetFile(target).metadata
    assert [found.row_group(at).num_rows for at in range(found.num_row_groups)] == [4, 4, 4]
