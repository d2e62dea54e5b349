"""Trouble with a file as a whole, and the ways to name a source."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard

from db.errors import InputError, UsageError
from producer.reading import BadLine, Line, read


def prompts(name: str, **options: Any) -> list[str]:
    found = []
    for line in read([name], **options):
        assert isinstance(line, Line), line
        found.append(line.request["prompt"])
    return found


def refusal(name: str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        list(read([name], **options))
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Stdin:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


def test_given_a_missing_file_when_named_then_refused_before_reading(here: Path) -> None:
    with pytest.raises(InputError, match=r"^gone\.jsonl: no such file: check the path$"):
        read(["gone.jsonl"])


def test_given_a_directory_when_named_then_a_pattern_is_offered(here: Path) -> None:
    Path("data").mkdir()
    assert refusal("data/") == "data/: this is a directory: name its files, as in data/*.jsonl"


@pytest.mark.parametrize("name", ["", "a\0b", "n" * 5000])
def test_given_an_impossible_name_when_read_then_it_is_an_input_error(
    here: Path, name: str
) -> None:
    with pytest.raises(InputError):
        read([name])


def test_given_no_sources_when_read_then_standard_input_is_offered() -> None:
    with pytest.raises(InputError, match="name a file, or - for standard input"):
        read([])


def test_given_a_lone_string_when_read_then_it_is_one_source(here: Path) -> None:
    Path("a.txt").write_text("x\n")
    assert len(list(read("a.txt"))) == 1


def test_given_a_file_without_permission_when_read_then_chmod_is_offered(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.txt").write_text("x")

    def denied(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refusal("a.txt") == "a.txt: permission denied: let your user read it (chmod u+r)"


def test_given_an_io_error_while_reading_when_read_then_it_names_the_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    Path("a.txt").write_text("x")
    monkeypatch.setattr(Path, "open", lambda self, mode: Failing())
    assert refusal("a.txt") == "a.txt: can't be read: Input/output error: try a copy"


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv", "a.tsv", "a.parquet", "a"])
@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_given_an_empty_file_when_read_then_refused(here: Path, name: str, content: bytes) -> None:
    if content and name in ("a.csv", "a.tsv", "a.parquet"):
        content = b""
    Path(name).write_bytes(content)
    assert refusal(name) == f"{name}: is empty: give it at least one request"


def test_given_empty_compressed_files_when_read_then_refused(here: Path) -> None:
    Path("a.jsonl.gz").write_bytes(gzip.compress(b""))
    Path("b.jsonl.gz").write_bytes(b"")
    Path("c.jsonl.zst").write_bytes(zstandard.compress(b""))
    for name in ("a.jsonl.gz", "b.jsonl.gz", "c.jsonl.zst"):
        assert "is empty" in refusal(name)


def test_given_a_csv_with_a_header_only_when_read_then_it_is_empty(here: Path) -> None:
    Path("a.csv").write_text("prompt\n")
    assert refusal("a.csv") == "a.csv: is empty: give it at least one request"


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv"])
def test_given_a_nul_byte_when_read_then_line_and_offset_are_named(here: Path, name: str) -> None:
    Path(name).write_bytes(b'"prompt"\n"b"\n\x00\x01')
    *_, bad = read([name])
    assert isinstance(bad, BadLine)
    assert "binary data (a NUL at byte 13): give a file of text, in UTF-8" in bad.reason
    assert ":3: " in bad.message or "(line 3)" in bad.message


def test_binary_file_is_refused_as_a_whole(here: Path) -> None:
    Path("a.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert refusal("a.txt").startswith("a.txt:3: binary data (a NUL at byte 8)")
    Path("a.jsonl").write_bytes("hello".encode("utf-16-le"))
    assert refusal("a.jsonl").startswith("a.jsonl:1: binary data (a NUL at byte 1)")


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv"])
def test_given_invalid_utf8_when_read_then_line_and_offset_are_named(here: Path, name: str) -> None:
    Path(name).write_bytes(b'\xef\xbb\xbf"prompt"\n"caf\xe9"\n')
    *_, bad = read([name])
    assert isinstance(bad, BadLine)
    assert "not UTF-8 text (byte 16 is 0xe9): save the file as UTF-8" in bad.reason
    assert ":2: " in bad.message or "(line 2)" in bad.message


def test_given_utf16_when_read_then_saving_as_utf8_is_advised(here: Path) -> None:
    Path("a.txt").write_bytes("hello".encode("utf-16"))
    assert refusal("a.txt") == "a.txt:1: this is UTF-16 text: save the file as UTF-8"


@pytest.mark.parametrize(("suffix", "kind"), [("gz", "gzip"), ("zst", "zstd")])
def test_given_a_truncated_file_when_read_then_the_last_good_line_is_named(
    here: Path, suffix: str, kind: str
) -> None:
    first, second = b'"a"\n"b"\n', b"".join(b'"%d"\n' % i for i in range(100_000))
    pack = gzip.compress if suffix == "gz" else zstandard.compress
    name = f"a.jsonl.{suffix}"
    Path(name).write_bytes(pack(first) + pack(second)[:40])
    message = refusal(name)
    assert message.startswith(f"{name}: ends early after line ")
    assert message.endswith(f"the {kind} data is cut off, copy or compress it again")
    assert int(message.split("after line ")[1].split(":")[0]) >= 2


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_given_a_truncated_parquet_when_compressed_then_it_ends_early(
    here: Path, suffix: str
) -> None:
    pack = gzip.compress if suffix == "gz" else zstandard.compress
    Path(f"a.parquet.{suffix}").write_bytes(pack(b"PAR1" + os.urandom(5000))[:-9])
    assert refusal(f"a.parquet.{suffix}").startswith(f"a.parquet.{suffix}: ends early: the ")


@pytest.mark.parametrize(("suffix", "kind"), [("gz", "gzip"), ("zst", "zstd")])
def test_given_plain_text_under_a_packed_name_when_read_then_damage_is_told(
    here: Path, suffix: str, kind: str
) -> None:
    Path(f"a.txt.{suffix}").write_text("hello, this is text\n" * 10)
    message = refusal(f"a.txt.{suffix}")
    assert message.startswith(f"a.txt.{suffix}: is damaged after line 0: this is no sound {kind}")
    assert message.endswith("copy or compress it again")


def test_given_damaged_gzip_when_read_then_the_checksum_tells(here: Path) -> None:
    packed = bytearray(gzip.compress(b'"hello"\n' * 2**18))
    packed[-6] ^= 1
    Path("a.jsonl.gz").write_bytes(packed)
    message = refusal("a.jsonl.gz")
    assert message.startswith("a.jsonl.gz: is damaged after line 131072: this is no sound gzip")


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst", "a.txt"])
def test_given_many_members_when_read_then_all_are(here: Path, name: str) -> None:
    pack = zstandard.compress if name.endswith("zst") else gzip.compress
    padding = b"" if name.endswith("zst") else b"\0" * 700
    Path(name).write_bytes(pack(b"one\ntw") + padding + pack(b"o\n") + pack(b"three") + padding)
    assert prompts(name) == ["one", "two", "three"]


@pytest.mark.parametrize(
    "name", ["a.JSONL", "a.ndjson", "a.json", "a.jsonl.gz", "a.json.zst", "x.y.jsonl", "a", ".a"]
)
def test_given_names_of_jsonl_when_read_then_it_is_jsonl(here: Path, name: str) -> None:
    content = b'{"prompt": "x"}\n'
    if name.endswith("gz"):
        content = gzip.compress(content)
    elif name.endswith("zst"):
        content = zstandard.compress(content)
    Path(name).write_bytes(content)
    assert prompts(name) == ["x"]


def test_given_an_unknown_suffix_when_the_content_tells_then_read_else_refused(here: Path) -> None:
    Path("a.data").write_text(' \n{"prompt": "x"}')
    Path("b.md").write_text("# Title\n")
    assert prompts("a.data") == ["x"]
    message = refusal("b.md")
    assert message.startswith("b.md: the suffix '.md' is unknown: rename the file to .jsonl, .txt")
    assert message.endswith("or give its format")
    assert prompts("b.md", format="txt") == ["# Title"]


def test_given_a_format_when_it_overrides_the_suffix_then_it_wins(here: Path) -> None:
    Path("a.jsonl").write_text("{not json\n")
    assert prompts("a.jsonl", format="txt") == ["{not json"]
    with pytest.raises(UsageError, match="format 'xml' is unknown: use one of jsonl, txt, csv"):
        read(["a.jsonl"], format="xml")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"prompt": "x"}', "x"),
        (b'\n  "x"', "x"),
        (b'\xef\xbb\xbf{"prompt": "x"}', "x"),
        (b"x {}\n", "x {}"),
        (gzip.compress(b'"x"'), "x"),
        (zstandard.compress(b"x\n"), "x"),
    ],
    ids=["json", "spaced", "marked", "text", "gzip", "zstd"],
)
def test_given_stdin_when_read_then_its_first_bytes_tell_the_format(
    monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(content))
    assert prompts("-") == [expected]


def test_given_bad_stdin_when_read_then_it_is_called_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b'"x"\n{}\n'))
    _, bad = read(["-"])
    assert isinstance(bad, BadLine)
    assert bad.message.startswith("-:2: has neither")
    monkeypatch.setattr(sys, "stdin", Stdin(b""))
    assert refusal("-") == "-: is empty: give it at least one request"


def test_given_closed_stdin_when_read_then_a_file_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal("-") == "-: standard input is closed: name a file"


def test_given_a_pipe_when_read_then_it_is_not_sought(here: Path) -> None:
    os.mkfifo("pipe")
    writer = subprocess.Popen([sys.executable, "-c", "open('pipe','w').write('a\\nb\\n')"])
    try:
        assert prompts("pipe") == ["a", "b"]
    finally:
        assert writer.wait(timeout=30) == 0


def test_given_a_glob_when_read_then_files_come_by_name_and_empty_ones_do_no_harm(
    here: Path,
) -> None:
    Path("d.txt").mkdir()
    for name, content in (("b.txt", "2\n"), ("a.txt", "1\n"), ("c.txt", "")):
        Path(name).write_text(content)
    assert prompts("*.txt") == ["1", "2"]
    assert [line.source for line in read(["*.txt"])] == ["a.txt", "b.txt"]
    assert refusal("*.csv") == "*.csv: no file matches: check the pattern"
    assert refusal("c*") == "c.txt: is empty, like every file that matches: check them"


def test_given_a_file_named_like_a_glob_when_named_then_it_is_that_file(here: Path) -> None:
    Path("a[1].txt").write_text("x\n")
    assert prompts("a[1].txt") == ["x"]


def test_given_many_sources_when_read_then_numbers_start_anew(here: Path) -> None:
    Path("a.txt").write_text("1\n2\n")
    Path("b.jsonl").write_text('"3"\n')
    found = [(line.source, line.number) for line in read(["a.txt", "b.jsonl"])]
    assert found == [("a.txt", 1), ("a.txt", 2), ("b.jsonl", 1)]


def test_given_a_large_file_when_read_then_memory_stays_small(here: Path) -> None:
    line = b'{"prompt": "%s"}\n' % (b"x" * 2000)
    with gzip.open("a.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(200):
            file.write(line * 100)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(["a.jsonl.gz"])) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
