"""Other users of the machine, and names that look like paths."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from db.embedded import socket_path
from tests.acceptance.mill import Mill, echoing


def _is_private(path: Path) -> bool:
    return not path.lstat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


@pytest.mark.parametrize("first", ["submit", "worker", "run", "list"])
def test_given_no_home_when_anything_starts_then_it_is_for_this_user_alone(
    embedded: Mill, first: str
) -> None:
    home = Path(embedded.env["PROMPTMILL_HOME"])
    if first == "worker":
        embedded.worker()
    elif first == "submit":
        embedded.submit(1)
    elif first == "list":
        embedded.ok("list")
    else:
        file = embedded.numbered(1)
        done = embedded.run("run", file, "--model", "m", "-o", str(embedded.folder / "out.jsonl"))
        assert done.returncode == 0, done.stderr
    assert _is_private(home)
    path = socket_path(home)
    if path.exists():
        assert _is_private(path)
        assert _is_private(path.parent)


def test_given_a_home_that_all_may_enter_when_it_is_used_then_prompts_are_for_this_user_alone(
    embedded: Mill,
) -> None:
    home = Path(embedded.env["PROMPTMILL_HOME"])
    home.mkdir(mode=0o755)
    embedded.worker()
    embedded.finished(embedded.submit(1))
    files = [path for path in home.iterdir() if path.name.startswith("promptmill.db")]
    assert files
    assert all(map(_is_private, files))
    assert _is_private(socket_path(home).parent)


def test_given_names_like_paths_when_a_batch_is_exported_then_no_path_is_made_of_them(
    mill: Mill, tmp_path: Path
) -> None:
    names = ["../../escaped", "/tmp/escaped", "..", "a/b", "C:\\escaped", "~/escaped", "$(id)"]
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        "".join(json.dumps({"custom_id": name, "prompt": "hi"}) + "\n" for name in names)
    )
    mill.worker(echoing())
    words = ("submit", str(file), "--model", mill.model, "--name", "../../escaped", "-p")
    batch = mill.ok(*words, "temperature=0").strip()
    mill.finished(batch)
    folder = tmp_path / "deep" / "out"
    folder.mkdir(parents=True)
    before = set(tmp_path.rglob("*"))
    for suffix in ("jsonl", "csv", "parquet"):
        mill.ok("results", batch, "-o", str(folder / f"r.{suffix}"))
    made = set(tmp_path.rglob("*")) - before
    names_of_files = ("r.jsonl", "r.jsonl.meta.json", "r.csv", "r.csv.meta.json", "r.parquet")
    assert made == {folder / name for name in names_of_files}
    assert {one.custom_id for one in mill.client.results(batch)} == set(names)
