"""URLs, through fsspec's in-memory file system."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from db.errors import InputError
from producer.reading import Line, read, remote


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()


def prompts(url: str) -> list[str]:
    return [line.request["prompt"] for line in read([url]) if isinstance(line, Line)]


def test_given_a_url_when_read_then_lines_name_it(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("/d/a.jsonl", b'"x"\n')
    assert list(read(["memory://d/a.jsonl"])) == [Line("memory://d/a.jsonl", 1, {"prompt": "x"})]


def test_given_a_url_pattern_when_read_then_files_come_by_name(
    memory: fsspec.AbstractFileSystem,
) -> None:
    memory.pipe({"/d/b.txt": b"2\n", "/d/a.txt": b"1\n"})
    assert prompts("memory://d/*.txt") == ["1", "2"]
    with pytest.raises(InputError, match=r"memory://d/\*\.csv: no file matches: check"):
        read(["memory://d/*.csv"])


def test_given_a_parquet_url_when_read_then_it_is_read_in_place(
    memory: fsspec.AbstractFileSystem,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with memory.open("/a.parquet", "wb") as file:
        pq.write_table(pa.table({"prompt": ["x", "y"]}), file)
    assert prompts("memory://a.parquet") == ["x", "y"]


def test_given_a_file_url_when_read_then_the_local_file_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    assert prompts(f"file://{tmp_path}/a.txt") == ["x"]


def test_given_a_signed_web_address_when_found_then_its_query_is_no_pattern_or_suffix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = "https://host/d/a.jsonl?sig=a*b.txt"
    monkeypatch.setattr(remote, "_resolve", lambda url: (None, url))
    ((name, path, _),) = remote.find(address)
    assert (name, path) == (address, "https://host/d/a.jsonl")


def test_given_a_missing_url_when_read_then_it_is_named() -> None:
    with pytest.raises(InputError, match=r"memory://gone\.txt: no such file: check the path"):
        list(read(["memory://gone.txt"]))


def test_given_a_url_without_its_driver_when_read_then_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"s3://b/a\.jsonl: its driver is missing.*s3fs"):
        read(["s3://b/a.jsonl"])


@pytest.mark.parametrize("url", ["gopher://me:hush@host/a.jsonl", "memory://me:hush@host/*.jsonl"])
def test_given_a_url_with_a_password_when_it_fails_then_the_message_does_not_show_it(
    url: str,
) -> None:
    with pytest.raises(InputError) as caught:
        list(read([url]))
    assert "me:***@host" in caught.value.message
    assert "hush" not in caught.value.message


def test_given_an_unknown_scheme_when_read_then_it_is_told() -> None:
    with pytest.raises(InputError, match=r"nope://a\.txt: can't be opened: .*check the URL"):
        read(["nope://a.txt"])


def test_given_a_driver_that_fails_when_read_then_its_error_is_told_in_one_line(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: object, *args: object, **options: object) -> None:
        raise RuntimeError("no\ncredentials")

    monkeypatch.setattr(type(memory), "_open", failing)
    with pytest.raises(InputError, match=r"^memory://a\.txt: can't be read: no credentials: check"):
        list(read(["memory://a.txt"]))


def test_given_local_text_when_read_then_neither_fsspec_nor_pyarrow_is_imported(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jsonl").write_text('"x"\n')
    code = (
        "import sys; from producer.reading import read; list(read([sys.argv[1]]));"
        "import producer.model_files;"
        "heavy = {'fsspec', 'pyarrow', 'zstandard', 'torch', 'transformers'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.jsonl")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
