"""The program's own streams: closed, broken, and errors that nobody thought of."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from producer.cli import main
from tests.support.processes import command, environment


def shell(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line from a shell that redirects its streams."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *command(*arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def test_when_standard_output_is_closed_then_one_line_says_so_before_anything_is_done(
    tmp_path: Path,
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a prompt\n")
    done = shell(">&-", "submit", str(prompts), "--model", "m")
    assert done.returncode == 2
    assert done.stderr == "promptmill: standard output is closed: send it somewhere, as in >FILE\n"
    assert not (tmp_path / "home").exists()


def test_when_standard_error_is_closed_then_the_command_works_all_the_same(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a prompt\n")
    done = shell("2>&-", "submit", str(prompts), "--model", "m")
    assert done.returncode == 0
    assert done.stdout.startswith("b")


def test_when_standard_input_is_closed_then_reading_it_is_refused() -> None:
    done = shell("<&-", "submit", "-", "--model", "m")
    assert done.returncode == 2
    assert done.stderr == "promptmill: -: standard input is closed: name a file\n"


def test_when_the_command_line_runs_then_a_broken_socket_does_not_kill_the_process() -> None:
    # Redis or PostgreSQL may hang up at any time: that must be an error, not the end by SIGPIPE.
    before = signal.getsignal(signal.SIGPIPE)
    assert CliRunner().invoke(main, ["completion", "bash"]).exit_code == 0
    assert signal.getsignal(signal.SIGPIPE) == before


def test_given_a_bug_when_a_command_breaks_then_one_line_says_how_to_see_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_self: object, _limit: int) -> None:
        raise RuntimeError("out of\ncheese")

    monkeypatch.setattr("producer.client.Client.batches", broken)
    done = CliRunner().invoke(main, ["list"])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert done.stderr == (
        "promptmill: unexpected RuntimeError: out of cheese: "
        "'promptmill --debug …' shows where; please report it\n"
    )


def test_given_a_bug_when_debugging_then_it_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: object, _limit: int) -> None:
        raise RuntimeError("out of cheese")

    monkeypatch.setattr("producer.client.Client.batches", broken)
    done = CliRunner().invoke(main, ["--debug", "list"])
    assert isinstance(done.exception, RuntimeError)
    assert isinstance(CliRunner().invoke(main, ["list"]).exception, SystemExit)
