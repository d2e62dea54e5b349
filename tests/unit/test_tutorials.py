"""The pages that are read from top to bottom: every command and snippet runs as it is shown."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from db.settings import PREFIX, variable
from tests.support.processes import environment, workers

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

#: The model of the page's own requests.
OPENAI_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"

#: What a line says of speed, and of how many jobs failed.
_VARYING = re.compile(r", \d+ tokens in .*|\d+ jobs?(?= queued again)|(?<=queued again).*")

_ID = re.compile(r"\b[a-z0-9]{12}\b")

#: What only an engine that guides its texts can do.
GUIDED = ("choice=", "--schema")


def fenced(page: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def console(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a block with the output that is shown under it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        typed, _, output = part.partition("\n")
        yield typed, output


def shape(output: str) -> object:
    """Output without what differs from run to run: ids, numbers, and what a model wrote."""
    lines = output.splitlines()
    if lines and lines[0].startswith("{"):
        return [keys(json.loads(line)) for line in lines]
    if lines and lines[0].count(",") > 2 and not lines[0].startswith("["):
        header, *records = csv.reader(lines)
        return header, [[_ID.sub("BATCH", cell) for cell in record[:3]] for record in records]
    return [_ID.sub("BATCH", _VARYING.sub("", line)) for line in lines]


def keys(value: object) -> object:
    """The keys of a JSON value at every depth."""
    if isinstance(value, dict):
        return {key: keys(inner) for key, inner in value.items()}
    return [keys(inner) for inner in value] if isinstance(value, list) else None


class Shell:
    """Runs a page's blocks in a folder of its own."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        program = folder / "bin" / "promptmill"
        program.parent.mkdir()
        start = f"exec {shlex.quote(sys.executable)}"
        program.write_text(
            f"#!/bin/sh\n{start} -c 'from producer.cli import main; main()' \"$@\"\n", "utf-8"
        )
        python = program.with_name("python")
        python.write_text(f'#!/bin/sh\n{start} "$@"\n', "utf-8")
        program.chmod(0o755)
        python.chmod(0o755)
        path = f"{program.parent}:{os.environ['PATH']}"
        self.env = environment({"PATH": path, "NO_COLOR": "1", **settings})

    def run(self, *words: str, settings: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**self.env, **(settings or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def check(self, block: str, settings: Mapping[str, str] | None = None) -> int:
        """Run a console block; the number of its commands."""
        commands = list(console(block))
        for typed, shown in commands:
            words = shlex.split(typed)
            if words[0] == "cat" and not (self.folder / words[1]).exists():
                (self.folder / words[1]).write_text(shown, "utf-8")
            assert shape(self.run("bash", "-c", typed, settings=settings)) == shape(shown), typed
        return len(commands)


@pytest.fixture
def no_services(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTGRES", "REDIS"):  # where the test services are is no setting
        monkeypatch.delenv(f"{PREFIX}TEST_{name}", raising=False)


@pytest.mark.usefixtures("no_services")
def test_page_for_users_of_openai_runs_as_shown(tmp_path: Path) -> None:
    blocks = fenced((DOCS / "from-openai.md").read_text("utf-8"))
    shell = Shell(tmp_path, {})
    serving = {variable("model"): OPENAI_MODEL, variable("engine"): "echo"}
    with workers(tmp_path / "workers") as start:
        start(serving)
        count = sum(shell.check(body) for language, body in blocks if language == "console")
        (ours,) = (body for language, body in blocks if language == "python")
        printed = shell.run(sys.executable, "-c", ours)
    assert count > 3
    assert printed.splitlines() == [
        "france succeeded The capital of France?",
        "spain succeeded The capital of Spain?",
    ]
    (theirs,) = (body for language, body in blocks if language == "py")
    compile(theirs, "from-openai.md", "exec")


@pytest.mark.usefixtures("no_services")
def test_recipes_run_as_shown(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pandas")
    from tests.support.tiny_models import build_tiny_model

    blocks = fenced((DOCS / "recipes.md").read_text("utf-8"))
    echo = {variable("model"): "echo", variable("engine"): "echo"}
    shell = Shell(tmp_path, echo)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "results").mkdir()
    tiny = build_tiny_model("gemma3", tmp_path / "tiny")
    guided = {variable("model"): str(tiny), variable("engine"): "transformers"}
    guided |= {variable("engine_options"): '{"batching": "static"}'}  # continuous tries itself out
    with workers(tmp_path / "workers") as start:
        start(echo)
        for language, body in blocks:
            if language == "console":
                shell.check(body, guided if any(word in body for word in GUIDED) else echo)
            elif language == "python":
                printed = shell.run(sys.executable, "-c", body).splitlines()
                assert printed == re.findall(r"^print\(.*\)  # (.*)$", body, re.MULTILINE)
