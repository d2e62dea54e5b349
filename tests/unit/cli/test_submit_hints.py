"""What `submit`, `run` and `worker` say of a mistyped model, and of a model that nobody serves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from db.settings import settings
from producer.cli import main

Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`promptmill ARGUMENTS` in a folder with `a.csv` and `models/tiny-instruct.gguf`."""
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("text\nHello\n")
    Path("models").mkdir()
    Path("models/tiny-instruct.gguf").write_bytes(b"GGUF")

    def run(*arguments: str) -> Result:
        settings.cache_clear()
        return CliRunner().invoke(main, arguments, prog_name="promptmill")

    return run


@pytest.mark.parametrize(
    "command",
    [("submit", "a.csv"), ("run", "a.csv"), ("run", "a.csv", "--engine=echo"), ("worker",)],
)
def test_mistyped_model_path_is_refused(cli: Cli, command: tuple[str, ...]) -> None:
    template = () if command == ("worker",) else ("--template", "{text}")
    done = cli(*command, "--model", "models/tiny-instuct", *template)
    assert done.exit_code == 2
    assert done.stderr == (
        "promptmill: model models/tiny-instuct: no such file or folder: did you mean "
        "models/tiny-instruct.gguf?\n"
    )
    assert cli("list").stdout == ""


@pytest.mark.parametrize(
    ("model", "command"),
    [
        ("org/base", "promptmill worker --model org/base"),
        ("echo", "promptmill worker --model echo --engine echo"),
    ],
)
def test_submit_names_the_worker_that_is_missing(cli: Cli, model: str, command: str) -> None:
    done = cli("submit", "a.csv", "--model", model, "--template", "{text}", "--plain")
    assert done.exit_code == 0
    assert re.fullmatch(r"\w{12}\n", done.stdout)
    assert done.stderr.splitlines()[1:] == [f"no worker serves it yet; start one: {command}"]


def test_submit_names_the_engine_of_the_settings(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTMILL_ENGINE", "openai")
    done = cli("submit", "a.csv", "--model", "gpt-9", "--template", "{text}")
    assert done.stderr.endswith("promptmill worker --model gpt-9 --engine openai\n")


def test_echo_has_no_chat_template_for_certain(cli: Cli) -> None:
    done = cli("submit", "a.csv", "--model", "echo", "--template", "{text}")
    assert done.stderr.startswith(
        "each row becomes a bare prompt, since the engine echo has no chat template; --chat makes "
        "chats\n"
    )
