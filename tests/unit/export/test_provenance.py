"""What made a file's records: in a file beside it, grouped, and bounded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db.errors import OutputError
from db.pages import MadePage
from db.records import Result
from producer.export import provenance as provenance_module
from producer.export import write
from producer.export.provenance import Contributions
from tests.support.results import BATCH_ID, batch, failure, many, result


def made_by(*results: Result, in_order: bool = True) -> list[dict[str, Any]]:
    contributions = Contributions(in_order=in_order)
    for start in range(0, len(results), 3):
        contributions.add(MadePage(results[start : start + 3]))
    return contributions.document()


def test_file_of_one_worker_has_one_group_without_lines() -> None:
    (group,) = made_by(*many(7))
    assert group["records"] == 7
    assert group["workers"] == ["host:1:x"]
    assert group["params"] == {"max_tokens": 8, "temperature": 1.0}
    assert group["provenance"]["weights"] == "5f" * 32
    assert "lines" not in group


@pytest.mark.parametrize("in_order", [True, False])
def test_groups_have_the_lines_that_they_made(in_order: bool) -> None:
    other = {"worker": "host:2:y", "dtype": "bfloat16"}
    twin = {"worker": "host:3:z"}
    results = [
        result(1), result(2), result(3, **other), result(3, sample=1, **other), result(4),
        result(5, **twin), failure(6, worker=None), result(7, params='{"max_tokens":9}'),
    ]  # fmt: skip
    if not in_order:
        results.reverse()
    groups = made_by(*results, in_order=in_order)
    told = [(g["provenance"]["dtype"], g["workers"], g["lines"], g["records"]) for g in groups]
    assert sorted(told, key=lambda one: one[2]) == [
        ("float32", ["host:1:x", "host:3:z"], [(1, 2), (4, 5)], 4),
        ("bfloat16", ["host:2:y"], [(3, 3)], 2),
        ("float32", ["host:1:x"], [(7, 7)], 1),
    ]


def test_many_sets_of_parameters_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance_module, "_GROUPS", 5)
    (group,) = made_by(*[result(n, params=f'{{"seed":{n}}}') for n in range(1, 30)])
    assert (group["params"], group["records"]) == (None, 29)


def test_scattered_lines_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance_module, "_RUNS", 5)
    groups = made_by(*[result(n, worker=f"w{n % 2}", dtype=f"float{n % 2}") for n in range(1, 60)])
    assert [(group["lines"], group["records"]) for group in groups] == [(None, 30), (None, 29)]


@pytest.mark.parametrize("format_", ["jsonl", "csv", "openai"])
def test_text_file_gets_its_metadata_beside_it(format_: Any, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    write(many(3, request='{"prompt":"P"}'), target, format=format_, batch=batch())
    document = json.loads((tmp_path / "out.txt.meta.json").read_bytes())
    assert document["records"] == 3
    assert (document["object"], document["format"]) == ("results", 1)
    assert document["batch"]["id"] == BATCH_ID
    assert document["made_by"][0]["provenance"]["engine"] == "transformers"


def test_failed_export_leaves_the_old_file_and_its_metadata(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    write(many(2), target, format="jsonl", batch=batch())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken() -> Iterator[Result]:
        yield from many(1_000)
        raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError, match="went away"):
        write(broken(), target, format="jsonl", batch=batch())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_metadata_is_never_that_of_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between the two: the new file, and no metadata of the old one."""
    target = tmp_path / "out.jsonl"
    write(many(2), target, format="jsonl")

    def refused(*_: object) -> None:
        raise OutputError("killed")

    monkeypatch.setattr("producer.export.writer.write_metadata", refused)
    with pytest.raises(OutputError, match="killed"):
        write(many(3), target, format="jsonl")
    assert len(target.read_bytes().splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_device_and_pipe_get_no_metadata(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    write(many(2), link, format="jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["null"]
