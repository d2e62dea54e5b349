"""URLs, through fsspec's in-memory file system and drivers that fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from db.errors import OutputError
from db.records import Result
from producer.export import check_target, write
from tests.support.results import BATCH_ID, many


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()


def test_given_a_url_when_written_then_the_file_is_there(
    memory: fsspec.AbstractFileSystem,
) -> None:
    assert write(many(3), "memory://d/out.jsonl", format="jsonl") == 3
    lines = memory.cat("/d/out.jsonl").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"{BATCH_ID}-{n}" for n in (1, 2, 3)]
    assert json.loads(memory.cat("/d/out.jsonl.meta.json"))["records"] == 3


def test_given_a_parquet_url_when_written_then_it_can_be_read(
    memory: fsspec.AbstractFileSystem,
) -> None:
    write(many(3), "memory://out.parquet", format="parquet")
    with memory.open("/out.parquet", "rb") as file:
        assert pq.read_table(file).num_rows == 3


def test_given_an_error_midway_when_writing_then_the_old_file_stays(
    memory: fsspec.AbstractFileSystem,
) -> None:
    memory.pipe("/out.jsonl", b"old")

    def broken() -> Iterator[Result]:
        yield from many(3_000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(broken(), "memory://out.jsonl", format="jsonl")
    assert memory.cat("/out.jsonl") == b"old"
    write(many(1), "memory://out.jsonl", format="jsonl")
    assert memory.cat("/out.jsonl").count(b"\n") == 1


def test_given_a_driver_that_fails_when_writing_then_its_error_is_told_in_one_line(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: object, *args: object, **options: object) -> None:
        raise RuntimeError("no\ncredentials")

    monkeypatch.setattr(type(memory), "_open", failing)
    with pytest.raises(OutputError) as failure:
        write(many(1), "memory://out.jsonl", format="jsonl")
    assert failure.value.message == (
        "memory://out.jsonl: can't be written: no credentials: check URL and credentials"
    )


def test_given_a_driver_that_fails_at_the_end_when_writing_then_it_is_told(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFile

    def failing(self: object) -> None:
        raise TimeoutError("the store is away")

    monkeypatch.setattr(MemoryFile, "commit", failing)
    with pytest.raises(OutputError, match="can't be written: the store is away: check"):
        write(many(1), "memory://out.jsonl", format="jsonl")
    assert not memory.exists("/out.jsonl")


def test_given_a_file_url_when_written_then_the_local_rules_hold(tmp_path: Path) -> None:
    write(many(1), f"file://{tmp_path}/out.jsonl", format="jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.meta.json"]
    with pytest.raises(OutputError, match="its folder does not exist: create it"):
        write(many(1), f"file://{tmp_path}/no/out.jsonl", format="jsonl")


def test_given_a_url_without_its_driver_when_written_then_the_package_is_named() -> None:
    with pytest.raises(OutputError, match=r"s3://b/a\.jsonl: its driver is missing: .*s3fs"):
        write(many(1), "s3://b/a.jsonl", format="jsonl")
    with pytest.raises(OutputError, match="its driver is missing"):
        check_target("s3://b/a.jsonl")


def test_given_an_unknown_scheme_when_written_then_it_is_told() -> None:
    with pytest.raises(OutputError, match=r"nope://a: can't be opened: .*: check the URL"):
        write(many(1), "nope://a", format="jsonl")
