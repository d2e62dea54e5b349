"""Line ends and quotes: where a line, a record and a cell end."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from db.errors import InputError
from producer.reading import BadLine, InputWarning, Line, read

HALF_BEGUN = (
    'custom_id\tprompt\nr1\t"Well begun is half done\nr2\tan ordinary line\n'
    'r3\tthe end" she said\nr4\tlast line\n'
)
UNCLOSED = 'custom_id\tprompt\nr1\t"Unclosed start\nr2\tmiddle\nr3\tends here"\nr4\tlast line\n'
INCHES = 'custom_id\tprompt\nr1\t5" disk\nr2\t"hello" he said\nr3\tok\n'


def lines_of(name: str, content: str | bytes, **options: Any) -> list[Line | BadLine]:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read([name], **options))


def prompts(lines: list[Line | BadLine]) -> list[str]:
    return [line.request["prompt"] if isinstance(line, Line) else line.message for line in lines]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)]
)
def test_lone_carriage_returns_end_lines(suffix: str, pack: Callable[[bytes], bytes]) -> None:
    text = b"first prompt\rsecond prompt\rthird prompt\r"
    assert prompts(lines_of("a.txt" + suffix, pack(text))) == [
        "first prompt",
        "second prompt",
        "third prompt",
    ]
    assert prompts(lines_of("b.csv" + suffix, pack(b"prompt\ra\rb\n\rc\r\nd"))) == list("abcd")
    assert prompts(lines_of("c.tsv" + suffix, pack(b"prompt\ra\rb\n\rc\r\nd"))) == list("abcd")
    assert prompts(lines_of("d.jsonl" + suffix, pack(b'"a"\r"b"\n\r"c"\r\n"d"'))) == list("abcd")


def test_line_ends_inside_quoted_cells_are_kept() -> None:
    lines = lines_of("a.csv", 'prompt\r\n"a\r\nb"\r\n"c\rd"\r\n"e\nf"\r\n')
    assert prompts(lines) == ["a\r\nb", "c\rd", "e\nf"]


@pytest.mark.parametrize(
    ("content", "expected", "begin"),
    [
        (HALF_BEGUN, ['"Well begun is half done', "an ordinary line", 'the end" she said'], 1),
        (UNCLOSED, ['"Unclosed start', "middle", 'ends here"'], 1),
        (INCHES, ['5" disk', '"hello" he said'], 1),
    ],
)
def test_quote_in_tsv_is_a_character(content: str, expected: list[str], begin: int) -> None:
    with pytest.warns(
        InputWarning, match=r"a\.tsv: 1 cell begins with a quote \(the first in line"
    ):
        lines = lines_of("a.tsv", content)
    assert prompts(lines)[: len(expected)] == expected
    assert len(lines) == content.count("\n") - 1


def test_record_that_spans_lines_in_tsv_is_an_error_by_line() -> None:
    content = 'custom_id\tprompt\nr1\t"one\ntwo"\nr2\tx\n'
    with pytest.warns(InputWarning, match="give --quoting csv"):
        first, second, third = lines_of("a.tsv", content)
    assert isinstance(first, Line)
    assert isinstance(second, BadLine)
    assert second.message == (
        "a.tsv: record 2: has 1 cells where the header has 2: add the missing ones, or give "
        "--quoting csv if cells are quoted, and may span lines, as in CSV"
    )
    assert isinstance(third, Line)
    assert prompts(lines_of("a.tsv", content, quoting="csv")) == ["one\ntwo", "x"]


def test_quoted_header_in_tsv_is_an_error_with_the_fix() -> None:
    with pytest.raises(InputError, match=r"a\.tsv: every cell of the header is in quotes: .* csv$"):
        lines_of("a.tsv", '"custom_id"\t"prompt"\n"r1"\t"x"\n')


def test_lone_quote_in_csv_is_a_bad_record_or_a_character() -> None:
    content = INCHES.replace("\t", ",")
    good, bad, last = lines_of("a.csv", content)
    assert prompts([good, last]) == ['5" disk', "ok"]
    assert isinstance(bad, BadLine)
    assert bad.message.startswith("a.csv: record 2: broken CSV: ',' expected after '\"': check")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prompts(lines_of("a.csv", content, quoting="none")) == [
            '5" disk',
            '"hello" he said',
            "ok",
        ]


def test_csv_record_of_lines_like_records_is_warned_of() -> None:
    with pytest.warns(InputWarning, match=r"a\.csv: 1 record spans lines that look like records"):
        lines = lines_of("a.csv", UNCLOSED.replace("\t", ","))
    assert prompts(lines) == ["Unclosed start\nr2,middle\nr3,ends here", "last line"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines_of("b.csv", 'id,prompt\n1,"two\nlines"\n2,x\n'.replace("id", "custom_id"))


def test_csv_quote_over_lines_that_breaks_names_its_first_line() -> None:
    with pytest.raises(InputError, match=r"^a\.csv:2: broken CSV: ',' expected after"):
        lines_of("a.csv", HALF_BEGUN.replace("\t", ","))
    with pytest.raises(InputError, match=r"^a\.csv:3: broken CSV: a quote that is opened .* never"):
        lines_of("a.csv", 'prompt\nx\n"a\nb\nc\n')


def test_quoting_of_a_file_that_has_none_is_an_error() -> None:
    with pytest.raises(InputError, match=r"a\.txt: --quoting is for csv and tsv, and this is txt"):
        lines_of("a.txt", "x\n", quoting="csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"prompt": "one"}\n{"prompt": "caf\xe9"}\n{"prompt": "three"}\n'),
        ("a.txt", b"one\ncaf\xe9\nthree\n"),
        ("a.csv", b"prompt\none\ncaf\xe9\nthree\n"),
        ("a.tsv", b"prompt\none\ncaf\xe9\nthree\n"),
    ],
)
@pytest.mark.parametrize("byte", [b"\xe9", b"\0"])
def test_bad_byte_is_a_bad_line(name: str, content: bytes, byte: bytes) -> None:
    first, bad, last = lines_of(name, content.replace(b"\xe9", byte))
    assert prompts([first, last]) == ["one", "three"]
    assert isinstance(bad, BadLine)
    what = "not UTF-8 text (byte" if byte == b"\xe9" else "binary data (a NUL at byte"
    assert what in bad.reason


def test_bad_byte_in_a_quoted_cell_of_lines_is_a_bad_record() -> None:
    content = b'custom_id,prompt\n1,"a\ncaf\xe9, b"\n2,c\n'
    bad, good = lines_of("a.csv", content)
    assert isinstance(bad, BadLine)
    assert bad.reason.endswith("(line 2)")
    assert prompts([good]) == ["c"]


cells = st.text(st.characters(exclude_characters="\0\r\n\t", exclude_categories=["Cs"]), min_size=1)


@pytest.mark.filterwarnings("ignore::producer.reading.InputWarning")
@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.just("x"), cells), min_size=1, max_size=5))
def test_any_tsv_cells_come_back_as_they_are(rows: list[tuple[str, str]]) -> None:
    content = "".join(f"{a}\t{b}\n" for a, b in [("x", "prompt"), *rows])
    assert prompts(lines_of("a.tsv", content, template="{prompt}")) == [b for _, b in rows]


@pytest.mark.filterwarnings("ignore::producer.reading.InputWarning")
@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(cells, st.text(st.sampled_from('a",\r\n\t é'), min_size=1)),
        min_size=1,
        max_size=5,
    )
)
def test_any_csv_cells_come_back_as_they_are(rows: list[tuple[str, str]]) -> None:
    file = io.StringIO()
    csv.writer(file).writerows([("x", "prompt"), *rows])
    found = lines_of("a.csv", file.getvalue(), template="{x}|{prompt}")
    assert prompts(found) == [f"{a}|{b}" for a, b in rows]
