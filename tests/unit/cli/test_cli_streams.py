"""The program's own streams: closed, broken, and errors that nobody thought of."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from producer.cli import main
from producer.display import printable
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
    def broken(_self: object, _limit: int, **_filters: object) -> None:
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
    def broken(_self: object, _limit: int, **_filters: object) -> None:
        raise RuntimeError("out of cheese")

    monkeypatch.setattr("producer.client.Client.batches", broken)
    done = CliRunner().invoke(main, ["--debug", "list"])
    assert isinstance(done.exception, RuntimeError)
    assert isinstance(CliRunner().invoke(main, ["list"]).exception, SystemExit)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize("arguments", [["--help"], ["list", "--json"], ["doctor"]], ids=" ".join)
def test_when_standard_output_is_full_then_one_line_says_so(arguments: list[str]) -> None:
    batches = shell("", "submit", __file__, "--format", "txt", "--model", "m")
    assert batches.returncode == 0
    done = shell(">/dev/full", *arguments)
    assert done.returncode == 1
    reason = "promptmill: standard output takes no more: No space left on device\n"
    assert done.stderr == reason


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_when_standard_output_is_full_then_a_submit_says_elsewhere_which_batch_it_is() -> None:
    done = shell(">/dev/full", "submit", __file__, "--format", "txt", "--model", "m")
    assert done.returncode == 1
    (listed,) = shell("", "list").stdout.splitlines()
    batch = listed.split("\t")[0]
    assert done.stderr.startswith(f"batch {batch} is queued, but standard output")


def test_when_texts_would_steer_the_terminal_then_they_are_shown_instead(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "a", "custom_id": "id\x1b[2J\x07\x9b"}) + "\n")
    name = "na\x1b]0;owned\x07me"
    batch = shell("", "submit", str(file), "--model", "m", "--name", name).stdout.strip()
    for arguments in (["status", batch], ["status", f"{batch}-1"], ["list"]):
        done = shell("", *arguments)
        assert done.returncode == 0, done.stderr
        assert not set("\x1b\x07\x9b") & set(done.stdout)
        assert "\\x1b" in done.stdout


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("日本 é\u00a0\u3000😀", "日本 é\u00a0\u3000😀"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\r\x08\x7f\x9b", "\\x0d\\x08\\x7f\\x9b"),
        ("\u202eabc\u2028", "\\u202eabc\\u2028"),
    ],
)
def test_what_a_terminal_gets_to_see(text: str, seen: str) -> None:
    assert printable(text) == seen


@pytest.mark.parametrize("words", ["run ./", "submit ./", "results b -o ./"])
def test_when_the_shell_asks_for_files_then_it_is_told_to_offer_its_own(words: str) -> None:
    typed = f"promptmill {words}"
    env = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = CliRunner().invoke(
        main, prog_name="promptmill", env={**env, "_PROMPTMILL_COMPLETE": "bash_complete"}
    )
    assert done.stdout == "file,./\n"
