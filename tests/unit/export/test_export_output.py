"""A file appears whole or not at all; what stood there before stays until then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.errors import OutputError
from db.records import Result
from producer.export import FORMATS, ExportFormat, check_target, write
from tests.support.results import many, result

ROOT = Path(__file__).parents[3]
AS_ROOT = os.geteuid() == 0


def interrupted(error: BaseException) -> Iterator[Result]:
    """More than is gathered before a write, and then an error."""
    yield from many(3_000, request={"prompt": "P"})
    raise error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not AS_ROOT or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("error", [RuntimeError("database"), KeyboardInterrupt()])
def test_given_an_error_midway_when_writing_then_nothing_is_left_and_the_old_file_stays(
    error: BaseException, format_: ExportFormat, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    with pytest.raises(type(error)) as raised:
        write(interrupted(error), target, format=format_)
    assert raised.value is error
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "old"


def test_given_a_write_in_progress_when_looking_then_the_target_is_not_there_yet(
    tmp_path: Path,
) -> None:
    target = tmp_path / "out.jsonl"
    seen = []

    def looking() -> Iterator[Result]:
        yield from many(3_000)
        seen.append(target.exists())

    write(looking(), target, format="jsonl")
    assert seen == [False]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.meta.json"]


@pytest.mark.parametrize("format_", FORMATS)
def test_given_a_full_disk_when_writing_then_it_says_so_and_the_old_file_stays(
    format_: ExportFormat, small_disk: Path
) -> None:
    target = small_disk / "out"
    target.write_text("old")
    texts = (
        result(line, text=os.urandom(500).hex(), request={"prompt": ""}) for line in range(1, 9_000)
    )
    with pytest.raises(OutputError) as failure:
        write(texts, target, format=format_)
    assert failure.value.message == (
        f"{target}: no space is left: free some, or write to another disk"
    )
    assert failure.value.exit_code == 1
    assert list(small_disk.iterdir()) == [target]
    assert target.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("format_", FORMATS)
def test_given_a_device_without_space_when_writing_then_it_says_so(format_: ExportFormat) -> None:
    with pytest.raises(OutputError, match=r"^/dev/full: no space is left: free some"):
        write(many(10, request={"prompt": ""}), "/dev/full", format=format_)


def test_given_a_device_when_writing_then_it_is_not_replaced() -> None:
    before = Path("/dev/null").stat()
    assert write(many(10), "/dev/null", format="jsonl") == 10
    after = Path("/dev/null").stat()
    assert (after.st_mode, after.st_rdev, after.st_ino) == (
        before.st_mode,
        before.st_rdev,
        before.st_ino,
    )


def test_given_a_missing_folder_when_writing_then_it_says_how_to_make_it(tmp_path: Path) -> None:
    target = tmp_path / "no" / "out.jsonl"
    with pytest.raises(OutputError) as failure:
        write(many(1), target, format="jsonl")
    assert failure.value.exit_code == 2
    assert failure.value.message == (
        f"{target}: its folder does not exist: create it with 'mkdir -p {target.parent}'"
    )
    with pytest.raises(OutputError, match="its folder does not exist"):
        check_target(str(target))


@pytest.mark.parametrize("output", [None, "-", "/dev/null", "memory://a.jsonl", "{}/new", "{}/old"])
def test_given_a_possible_target_when_checked_then_nothing_is_written(
    output: str | None, tmp_path: Path
) -> None:
    (tmp_path / "old").write_text("old")
    check_target(output.format(tmp_path) if output is not None else None)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "",
            (
                "this is a folder: give the name of a file in it, or export numbered files to it "
                "with 'promptmill results BATCH -o DIR/ --rows-per-file N'"
            ),
        ),
        ("file/out.jsonl", "a part of the path is a file, not a folder: check the path"),
        ("x" * 300, "the name is too long: choose a shorter one"),
    ],
)
def test_given_an_impossible_target_when_writing_then_it_says_why_before_reading_any_result(
    name: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")

    def unread() -> Iterator[Result]:
        yield pytest.fail("results were read")

    target = tmp_path / name
    with pytest.raises(OutputError) as failure:
        write(unread(), target, format="jsonl")
    assert failure.value.message == f"{target}: {reason}"
    with pytest.raises(OutputError) as failure:
        check_target(str(target))
    assert failure.value.message == f"{target}: {reason}"


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_given_a_forbidden_folder_or_file_when_writing_then_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    (tmp_path / "out").chmod(0o400)
    with pytest.raises(OutputError, match="permission denied: choose a place"):
        write(many(1), tmp_path / "out", format="jsonl")
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission denied: choose a place"):
        write(many(1), tmp_path / "new", format="jsonl")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(not AS_ROOT, reason="needs the right to become someone else")
def test_given_another_users_folder_when_writing_then_it_says_so(tmp_path: Path) -> None:
    code = (
        "import os, sys; from producer.export import check_target, write; os.setuid(65534);\n"
        "for act in (check_target, lambda target: write([], target, format='jsonl')):\n"
        " try: act(sys.argv[1])\n"
        " except Exception as error: print(type(error).__name__, error)"
    )
    target = tmp_path / "out.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    complaint = f"OutputError {target}: permission denied: choose a place that you may write to"
    assert done.stdout.splitlines() == [complaint, complaint]


def test_given_an_existing_file_when_replaced_then_its_mode_stays(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("old")
    target.chmod(0o640)
    write(many(1), target, format="jsonl")
    assert target.stat().st_mode & 0o777 == 0o640


def test_given_a_new_file_when_written_then_the_umask_gives_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    old = os.umask(0o027)
    try:
        write(many(1), target, format="jsonl")
    finally:
        os.umask(old)
    assert target.stat().st_mode & 0o777 == 0o640


def test_given_a_link_when_written_then_it_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(real)
    write(many(1), link, format="jsonl")
    write(many(2), link, format="jsonl")
    assert link.is_symlink()
    assert real.read_bytes().count(b"\n") == 2


def test_given_a_captured_stdout_when_written_then_it_gets_the_lines(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    assert write(many(2), "-", format="jsonl") == 2
    assert capsysbinary.readouterr().out.count(b"\n") == 2


WRITE_STDOUT = (
    "import sys; from producer.export import write;"
    "from tests.support.results import many;"
    "print('before');"
    "write(many(int(sys.argv[1])), None, format='jsonl')"
)


def test_given_a_piped_stdout_when_written_then_lines_follow_what_was_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE_STDOUT, "5"], capture_output=True, check=True, cwd=ROOT
    )
    assert done.stdout.startswith(b"before\n{")
    assert done.stdout.count(b"\n") == 6


def test_given_a_reader_that_hangs_up_when_written_then_broken_pipe_comes_through() -> None:
    code = WRITE_STDOUT.replace("write(many", "\ntry: write(many") + (
        "\nexcept BrokenPipeError: sys.stderr.write('hung up')"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.readline()
    writer.stdout.close()
    complaint = writer.stderr.read()
    writer.stderr.close()
    assert (writer.wait(timeout=20), complaint) == (0, b"hung up")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_given_a_full_stdout_when_written_then_it_is_told_once_and_python_ends_well() -> None:
    code = (
        "import sys; from producer.export import write;"
        "from tests.support.results import many;\n"
        "try: write(many(100), None, format='jsonl')\n"
        "except Exception as error: sys.stderr.write(f'{type(error).__name__} {error}')"
    )
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert done.stderr.startswith("OutputError standard output: no space is left")
    assert "Exception ignored" not in done.stderr
    assert done.returncode == 0
