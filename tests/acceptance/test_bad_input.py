"""What bad input gets: one line that says where and what to do, an exit code, nothing half done."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from db.database import Database
from db.queries import outcomes
from db.settings import Settings, settings
from producer import Client
from producer.cli import main
from tests.acceptance.bad_files import FILES, BadFile
from tests.support.processes import command, environment, promptmill
from tests.support.stored import a_batch, a_worker, claims, succeeded

#: `promptmill ARGUMENTS` in this process, from the test's folder.
Cli = Callable[..., Result]

NO_BATCH = "bbbbbbbbbbbb"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: bytes | None = None) -> Result:
        settings.cache_clear()
        return CliRunner().invoke(main, arguments, input=stdin, prog_name="promptmill")

    return run


@pytest.mark.parametrize("case", FILES.values(), ids=FILES.keys())
def test_given_a_bad_file_when_submitted_then_one_line_says_so_and_nothing_is_queued(
    case: BadFile, cli: Cli
) -> None:
    Path(case.name).write_bytes(case.content)
    done = cli("submit", case.name, "--model", "m", *case.options)
    _refused(done, 2, *case.says)
    assert cli("list").stdout == ""


def test_given_no_model_and_a_bad_first_line_when_submitted_then_the_line_is_told(
    cli: Cli,
) -> None:
    body = {"model": "m", "prompt": "x", "response_format": {"type": "json"}}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
    Path("a.jsonl").write_text(json.dumps(line) + "\n")
    _refused(cli("submit", "a.jsonl"), 2, "a.jsonl:1: response_format: its type is one of")


def test_unknown_engine_is_refused_by_the_option_that_named_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.txt").write_text("Hello\n")
    done = cli("run", "a.txt", "-m", "m", "--engine", "vlm")
    assert done.exit_code == 2
    assert "'--engine': 'vlm' is not one of 'transformers', 'keras', 'vllm'" in done.stderr
    monkeypatch.setenv("PROMPTMILL_ENGINE", "vlm")
    _refused(cli("run", "a.txt", "-m", "m"), 2, "PROMPTMILL_ENGINE", "'vllm'")


SCHEMAS = {
    "missing": (None, "--schema s.json: no such file: check the path"),
    "broken": ("{", "--schema s.json: this is not JSON"),
    "unknown type": ('{"type": "foo"}', "the schema can't be followed: Invalid type: foo"),
    "unknown keyword": ('{"not": {}}', "the schema can't be followed: Unimplemented keys"),
    "a list": ("[]", "a json_schema has the form"),
}


@pytest.mark.parametrize(("content", "says"), SCHEMAS.values(), ids=SCHEMAS.keys())
def test_given_a_bad_schema_when_submitted_then_the_reason_is_told_and_nothing_is_queued(
    content: str | None, says: str, cli: Cli
) -> None:
    Path("a.txt").write_text("Hello\n")
    if content is not None:
        Path("s.json").write_text(content)
    _refused(cli("submit", "a.txt", "-m", "m", "--schema", "s.json"), 2, says)
    assert cli("list").stdout == ""


PLACES = {
    "missing": (("submit", "no.jsonl", "-m", "m"), "no.jsonl: no such file: check the path"),
    "no match": (("submit", "*.jsonl", "-m", "m"), "*.jsonl: no file matches"),
    "folder": (("submit", ".", "-m", "m"), ".: this is a directory: name its files"),
    "url": (("submit", "nope://a/b.jsonl", "-m", "m"), "nope://a/b.jsonl: can't be opened"),
    "empty pipe": (("submit", "-", "-m", "m"), "-: is empty"),
    "no model": (("submit", "a.txt"), "which model? give --model, or set PROMPTMILL_MODEL"),
    "model folder": (("submit", "a.txt", "-m", "./no"), "model ./no: no such folder"),
    "model words": (("submit", "a.txt", "-m", "my model"), "neither a folder that exists nor"),
    "model file": (("submit", "a.txt", "-m", "a.txt"), "model a.txt: this is a file"),
    "batch": (("status", NO_BATCH), f"no batch {NO_BATCH}: 'promptmill list' shows"),
    "no id": (("status", "BATCH-1"), "no batch has the id or the name 'BATCH-1': "),
    "job": (("status", f"{NO_BATCH}-1"), f"no batch {NO_BATCH}"),
    "job as batch": (("watch", f"{NO_BATCH}-1"), "is a job: this takes a batch, such as"),
    **{
        name: ((name, NO_BATCH), f"no batch {NO_BATCH}: 'promptmill list' shows")
        for name in ("watch", "results", "cancel", "pause", "resume", "retry")
    },
    "delete": (("delete", NO_BATCH, "--yes"), f"no batch {NO_BATCH}"),
    "output": (("run", "a.txt", "-m", "m", "-o", "out.xyz"), "out.xyz: the suffix '.xyz' is"),
    "output folder": (
        ("run", "a.txt", "-m", "m", "-o", "no/out.csv"), "no/out.csv: its folder does not exist"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "says"), PLACES.values(), ids=PLACES.keys())
def test_given_a_name_for_nothing_when_used_then_one_line_says_so_and_nothing_is_queued(
    arguments: tuple[str, ...], says: str, cli: Cli
) -> None:
    Path("a.txt").write_text("a prompt\n")
    done = cli(*arguments)
    _refused(done, done.exit_code, says)
    assert done.exit_code in (1, 2)
    assert cli("list").stdout == ""


SETTINGS = {
    "database": (
        {"DATABASE_URL": "postgresql+psycopg://me:hush@127.0.0.1:1/x", "PATIENCE": "0"},
        1,
        "can't use database postgresql+psycopg://me:***@127.0.0.1:1/x: ",
    ),
    "redis": (
        {"BROKER_URL": "redis://:hush@127.0.0.1:1/0", "PATIENCE": "0"},
        1,
        "can't reach Redis at redis://:**",
    ),
    "home": ({"HOME": "/dev/null/home"}, 1, "/dev/null/home"),
    "scheme": ({"DATABASE_URL": "mysql://x"}, 2, "PROMPTMILL_DATABASE_URL: must start with"),
    "misspelt": ({"LEESE": "3"}, 2, "PROMPTMILL_LEESE: did you mean PROMPTMILL_LEASE?"),
    "range": ({"LEASE": "soon"}, 2, "PROMPTMILL_LEASE: "),
    "json": ({"ENGINE_OPTIONS": "latency"}, 2, "is not valid JSON"),
}


@pytest.mark.parametrize(("given", "code", "says"), SETTINGS.values(), ids=SETTINGS.keys())
def test_given_a_bad_setting_when_submitting_then_one_line_names_it(
    given: dict[str, str], code: int, says: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.txt").write_text("a prompt\n")
    for name, value in given.items():
        monkeypatch.setenv(f"PROMPTMILL_{name}", value)
    done = cli("submit", "a.txt", "-m", "m")
    _refused(done, code, says)
    assert "hush" not in done.stderr


@pytest.mark.parametrize("revision", ["0000", "9999"])
def test_given_a_schema_of_another_age_when_used_then_one_line_says_what_to_do(
    revision: str, cli: Cli
) -> None:
    assert cli("list").exit_code == 0
    database = Database(Settings())
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
    database.close()
    for arguments in (("list",), ("db", "upgrade")):
        _refused(cli(*arguments), 1, f"schema {revision}", "install a newer promptmill")


def test_given_many_bad_lines_when_submitted_then_the_first_twenty_are_told(cli: Cli) -> None:
    Path("a.jsonl").write_text(
        "".join(" " * number + "{\n" for number in range(50)) + '{"prompt": "fine"}\n'
    )
    done = cli("submit", "a.jsonl", "-m", "m")
    assert done.exit_code == 2
    first, *more = done.stderr.splitlines()
    assert first.startswith("promptmill: a.jsonl:1: broken JSON")
    assert first.endswith("; nothing was queued, for this and 49 more bad lines")
    assert [line.split(":")[:2] for line in more] == [
        *(["  a.jsonl", str(number)] for number in range(2, 21)),
        ["  and 30 more bad lines"],
    ]
    assert cli("list").stdout == ""

    # And skipped, they are failed jobs that say why, and the rest waits for a worker
    done = cli("submit", "a.jsonl", "-m", "m", "--skip-invalid")
    assert done.exit_code == 0
    with Client(Settings()) as client:
        batch = client.batch(done.stdout.strip())
        assert (batch.total, batch.failed, batch.state) == (51, 50, "queued")
    failed = cli("results", batch.id, "--failed")
    assert len(failed.stdout.splitlines()) == 50
    assert "broken JSON" in failed.stdout


def test_given_an_unknown_command_when_called_then_the_nearest_is_named(cli: Cli) -> None:
    done = cli("statsu")
    assert done.exit_code == 2
    assert "No such command 'statsu'. Did you mean 'status'?" in done.stderr
    assert "promptmill --help" in done.stderr


def test_given_an_unknown_option_when_called_then_the_nearest_is_named(cli: Cli) -> None:
    done = cli("submit", "a.txt", "--modle", "m")
    assert done.exit_code == 2
    assert "No such option" in done.stderr
    assert "--model" in done.stderr


def test_given_debug_when_it_fails_then_there_is_a_traceback_and_else_there_is_none() -> None:
    plain = promptmill("submit", "no.jsonl", "--model", "m")
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr == "promptmill: no.jsonl: no such file: check the path\n"
    full = promptmill("--debug", "submit", "no.jsonl", "--model", "m")
    assert full.returncode == 1
    assert full.stderr.startswith("Traceback (most recent call last):")
    assert "db.errors.InputError: no.jsonl: no such file" in full.stderr


@pytest.fixture
def finished() -> str:
    """A batch whose results are more than any pipe takes, and than 64 KiB."""
    with Client(Settings()) as client:
        batch = a_batch(client.database, 400, chunk_size=100)
        worker = a_worker(client.database)
        for claim in claims(client.database, worker):
            done = [succeeded(claim, job.line, "words " * 300) for job in claim.jobs]
            with client.database.write() as connection:
                outcomes.record(connection, done, worker=worker)
        return batch.id


def _results(batch: str, redirection: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *command("results", batch, *options)],
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet", "openai"])
def test_results_end_quietly_when_their_reader_leaves(format_: str, finished: str) -> None:
    done = _results(finished, '| head -c 99; exit "${PIPESTATUS[0]}"', "--format", format_)
    assert (len(done.stdout), done.stderr, done.returncode) == (99, b"", 0)


def test_given_a_full_disk_when_results_are_written_then_one_line_says_so(
    finished: str, cli: Cli
) -> None:
    piped = _results(finished, ">/dev/full")
    assert piped.returncode == 1
    assert piped.stderr == (
        b"promptmill: standard output: no space is left: free some, or write to another disk\n"
    )
    done = cli("results", finished, "-o", "/dev/full", "--format", "csv")
    _refused(done, 1, "/dev/full: no space is left")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_given_a_disk_that_fills_up_when_exporting_then_no_half_file_stays(
    finished: str, small_disk: Path, cli: Cli
) -> None:
    output = small_disk / "out.jsonl"
    output.write_text("from yesterday\n")
    done = cli("results", finished, "-o", str(output))
    _refused(done, 1, f"{output}: no space is left: free some, or write to another disk")
    assert [file.name for file in small_disk.iterdir()] == ["out.jsonl"]
    assert output.read_text() == "from yesterday\n"


def _refused(done: Result, code: int, *says: str) -> None:
    """The command ended with one line that says all of this, and nothing else."""
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("promptmill: ")
    assert [part for part in says if part not in line] == [], line
