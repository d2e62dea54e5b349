"""JSON Lines by a second process: the same bytes, and nothing of it stays."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest

from db.errors import OutputError
from db.pages import MadePage, Page
from producer.export import beside, jsonl, write_pages
from tests.support.results import full_layout, result

LAYOUT = full_layout()


@pytest.fixture(autouse=True)
def several_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def pages(count: int, text: str = "Hi") -> Iterator[Page]:
    for number in range(1, count + 1):
        yield MadePage([result(number, text=text), result(number, text=text, sample=1)])


def all_of(lines: Iterable[tuple[int, bytes]]) -> tuple[int, bytes]:
    counts, made = zip(*lines, strict=True)
    return sum(counts), b"".join(made)


def others() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "beside_main" in " ".join(one.cmdline())]


@pytest.mark.parametrize(
    "text",
    [
        "short: \N{SNOWMAN} \n",
        pytest.param("long " * 20_000, id="longer than a pipe and all that may be on the way"),
    ],
)
def test_given_many_pages_when_written_beside_then_the_bytes_are_the_same(text: str) -> None:
    count = beside.FIRST + 30
    assert all_of(beside.lines(pages(count, text), LAYOUT)) == all_of(
        jsonl.lines(pages(count, text), LAYOUT)
    )
    assert others() == []


@pytest.mark.parametrize("count", [0, 1, beside.FIRST])
def test_given_few_pages_when_written_beside_then_no_process_is_started(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    assert len(list(beside.lines(pages(count), LAYOUT))) == count


def test_given_one_processor_when_written_beside_then_no_process_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("subprocess.Popen", None)
    assert len(list(beside.lines(pages(beside.FIRST + 1), LAYOUT))) == beside.FIRST + 1


def test_given_lines_that_are_left_early_when_closed_then_the_process_is_gone() -> None:
    lines = beside.lines(pages(beside.FIRST + 200, "long " * 20_000), LAYOUT)
    for _ in range(beside.FIRST + 1):
        next(lines)
    assert len(others()) == 1
    lines.close()
    assert others() == []


def test_given_a_process_that_is_killed_when_written_then_the_file_stays_as_it_was(
    tmp_path: Path,
) -> None:
    target = tmp_path / "out.jsonl"
    target.write_bytes(b"before")

    def interrupted() -> Iterator[Page]:
        yield from pages(beside.FIRST + 1)
        yield from pages(1)  # it was started with the one before
        (other,) = others()
        other.kill()
        yield from pages(1_000, "long " * 20_000)

    with pytest.raises(OutputError, match="has died: try again"):
        write_pages(interrupted(), target, format="jsonl", layout=LAYOUT, beside=True)
    assert target.read_bytes() == b"before"
    assert others() == []


def test_given_pages_that_fail_when_written_beside_then_the_error_passes_and_nothing_stays(
    tmp_path: Path,
) -> None:
    def failing() -> Iterator[Page]:
        yield from pages(beside.FIRST + 5)
        raise ValueError("the database has gone")

    with pytest.raises(ValueError, match="has gone"):
        write_pages(failing(), tmp_path / "out.jsonl", format="jsonl", layout=LAYOUT, beside=True)
    assert list(tmp_path.iterdir()) == []
    assert others() == []


@pytest.mark.parametrize("cut_off", [b"", pickle.dumps(MadePage([result()]))[:-9]])
def test_given_a_parent_that_is_killed_when_its_pipe_ends_then_the_process_ends(
    cut_off: bytes,
) -> None:
    whole = pickle.dumps(LAYOUT) + pickle.dumps(MadePage([result()]))
    done = subprocess.run(
        [sys.executable, "-m", "producer.export.beside_main"],
        input=whole + cut_off,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert pickle.loads(done.stdout) == jsonl.page_lines(MadePage([result()]), LAYOUT)
    assert done.stderr == b""
