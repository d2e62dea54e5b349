"""Which format an output gets, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from db.errors import UsageError
from producer.export import ExportFormat, format_of, write


@pytest.mark.parametrize(
    ("output", "given", "expected"),
    [
        (None, None, "jsonl"),
        ("-", None, "jsonl"),
        ("-", "csv", "csv"),
        ("a.jsonl", None, "jsonl"),
        ("a.NDJSON", None, "jsonl"),
        ("a.csv.gz", None, "csv"),
        ("dir.d/a.jsonl.zst", None, "jsonl"),
        ("a.parquet", None, "parquet"),
        ("a.pq", None, "parquet"),
        ("s3://bucket/a.csv", None, "csv"),
        ("a.jsonl", "openai", "openai"),
        ("a.whatever", "parquet", "parquet"),
        ("/dev/null", "jsonl", "jsonl"),
    ],
)
def test_given_an_output_when_its_format_is_asked_then_word_or_suffix_tells(
    output: str | None, given: str | None, expected: str
) -> None:
    assert format_of(output, given) == expected


@pytest.mark.parametrize(
    ("output", "given", "message"),
    [
        ("a.xlsx", None, r"a\.xlsx: the suffix '\.xlsx' is unknown: end it in \.jsonl"),
        ("a.json", None, "the suffix '.json' is unknown"),
        ("results/", "jsonl", "results/: this is a folder"),
        ("results", None, "results: no suffix tells its format: end it in"),
        ("a.gz", None, "a.gz: no suffix tells its format"),
        ("a.csv", "excel", "format 'excel' is unknown: use one of jsonl, csv, parquet, openai"),
        ("a.parquet.gz", None, r"compressed inside: leave out the suffix \.gz"),
        ("a.zst", "parquet", r"compressed inside: leave out the suffix \.zst"),
    ],
)
def test_given_a_bad_output_when_its_format_is_asked_then_it_says_what_to_do(
    output: str, given: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        format_of(output, given)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(("terminal", "refused"), [(True, True), (False, False)])
def test_given_parquet_to_stdout_when_it_is_a_terminal_then_it_is_refused(
    terminal: bool, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    if refused:
        with pytest.raises(UsageError, match="parquet is not for a terminal: give -o"):
            format_of(None, "parquet")
    else:
        assert format_of(None, "parquet") == "parquet"
    assert format_of("a.parquet", None) == "parquet"


def test_given_compressed_parquet_when_written_then_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="compressed inside"):
        write([], tmp_path / "a.parquet.gz", format="parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", ["jsonl", "csv", "openai"])
def test_given_a_text_format_when_written_then_no_heavy_library_is_imported(
    format_: ExportFormat, tmp_path: Path
) -> None:
    code = (
        "import sys; from producer.export import write;"
        "write([], sys.argv[1], format=sys.argv[2]);"
        "heavy = {'fsspec', 'pyarrow', 'zstandard', 'torch', 'transformers'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.txt"), format_],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
