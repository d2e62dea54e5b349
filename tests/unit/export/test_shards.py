"""Numbered files of a folder: whole, continued after a kill, refused for anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from db.errors import UsageError
from db.pages import MadePage, Page
from db.records import Batch, Result
from producer.export import shards, write_pages
from producer.export.layout import RecordOptions, layout_of
from producer.export.shards import Folder, plan_of, write_shards
from tests.support.results import batch, many


def pages(count: int, size: int = 4) -> Iterator[Page]:
    results: list[Result] = list(many(count))
    for start in range(0, count, size):
        yield MadePage(results[start : start + size])


def export(
    folder: Path, count: int, of: Batch | None = None, rows: int = 5, fails_at: str = ""
) -> tuple[int, int]:
    of = of or batch()
    layout = layout_of(of, RecordOptions(), documents=False)

    def write(part: Iterator[Page], path: str) -> int:
        if fails_at and path.endswith(fails_at):
            raise KeyboardInterrupt
        return write_pages(
            part, path, format="parquet", layout=layout, batch=of, with_metadata=False
        )

    target = Folder(folder, "parquet", rows, plan_of(of, layout, {"format": "parquet"}, rows))
    return write_shards(pages(count), target, of, layout, write, in_order=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return document


def test_records_are_divided_and_the_manifest_has_them_all(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    assert export(folder, 12) == (12, 3)
    files = manifest(folder)["files"]
    assert [(file["file"], file["records"]) for file in files] == [
        ("part-00000.parquet", 5),
        ("part-00001.parquet", 5),
        ("part-00002.parquet", 2),
    ]
    assert files[0]["bytes"] == (folder / "part-00000.parquet").stat().st_size
    ids = [id_ for file in files for id_ in pq.read_table(folder / file["file"])["id"].to_pylist()]
    assert ids == [result.id for result in many(12)]
    assert manifest(folder)["made_by"][0]["records"] == 12


@pytest.mark.parametrize(("count", "files"), [(0, 1), (5, 1), (6, 2), (10, 2)])
def test_last_file_is_never_empty_but_where_nothing_is(
    count: int, files: int, tmp_path: Path
) -> None:
    assert export(tmp_path, count) == (count, files)


def test_interrupted_export_goes_on_with_the_files_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path, 12, fails_at="part-00001.parquet")
    (tmp_path / ".promptmill-0123.part").write_bytes(b"of a run that was killed")
    assert names(tmp_path) == [".promptmill-0123.part", "export.json", "part-00000.parquet"]
    before = (tmp_path / "part-00000.parquet").stat().st_ino
    assert export(tmp_path, 12) == (12, 3)
    assert (tmp_path / "part-00000.parquet").stat().st_ino == before
    assert names(tmp_path) == [
        "export.json", "manifest.json", *(f"part-0000{number}.parquet" for number in range(3))
    ]  # fmt: skip
    assert manifest(tmp_path)["made_by"][0]["records"] == 12


def test_lost_file_is_written_again(tmp_path: Path) -> None:
    export(tmp_path, 12)
    whole = (tmp_path / "part-00001.parquet").read_bytes()
    (tmp_path / "part-00001.parquet").unlink()
    export(tmp_path, 12)
    assert (tmp_path / "part-00001.parquet").read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "rows", "differs"),
    [
        ({"id": "bq7wn4c2kd9t"}, 5, "of another batch"),
        ({"finished_at": 1.0}, 5, "of the batch before it was run again"),
        ({}, 6, "with another --rows-per-file"),
    ],
)
def test_folder_of_another_export_is_refused(
    changes: dict[str, Any], rows: int, differs: str, tmp_path: Path
) -> None:
    export(tmp_path, 12)
    before = names(tmp_path)
    with pytest.raises(UsageError, match=f"has an export {differs}: give another folder"):
        export(tmp_path, 12, of=batch(**changes), rows=rows)
    assert names(tmp_path) == before


def test_every_key_of_a_plan_has_words_for_a_difference() -> None:
    layout = layout_of(batch(), RecordOptions(), documents=False)
    options = {"format": "csv", "only": None, "as_finished": False, "raw": False}
    assert set(plan_of(batch(), layout, options, 5)) - {"object"} == set(shards.OTHER)


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="has other files: give a new or an empty folder"):
        export(tmp_path, 3)
    assert names(tmp_path) == ["mine.txt"]
