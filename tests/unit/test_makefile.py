"""What a newcomer types first."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import parse

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


#: What a shell, or the `make test` that runs these tests, would hand on to make.
INHERITED = (
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "PYTHON",
    "MODEL",
    "OUTPUT",
    "TESTS",
    "FAULTS",
    "PIP_FLAGS",
)


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in INHERITED}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def planned(*arguments: str) -> list[str]:
    """The commands that make would run, everything being out of date; not what it only says."""
    result = make("--dry-run", "--always-make", *arguments)
    assert result.returncode == 0, result.stderr
    return [line for line in result.stdout.splitlines() if "echo '" not in line]


def test_demo_says_its_price_first_and_what_to_try_at_its_end() -> None:
    lines = make("--dry-run", "--always-make", "demo").stdout.splitlines()
    assert "of disk" in lines[0]
    assert "promptmill run YOUR_FILE.txt --model" in lines[-1]


def test_make_alone_lists_every_target_and_runs_nothing() -> None:
    shown = make().stdout
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert targets is not None
    for target in targets[1].split():
        assert re.search(rf"^  {target}  +\w", shown, re.MULTILINE), target
    for name in re.findall(r"^([A-Z_]+) \?=", MAKEFILE, re.MULTILINE):
        assert re.search(rf"^  {name}  +\w", shown, re.MULTILINE), name


def test_given_no_model_when_the_demo_runs_then_it_makes_the_weights_and_uses_them() -> None:
    commands = planned("demo", "MODEL=")
    assert ".venv/bin/python examples/fetch_weights.py models/gemma3-270m" in commands
    assert "--model models/gemma3-270m" in " ".join(shlex.split(commands[-1]))


def test_given_a_model_when_the_demo_runs_then_no_weights_are_made() -> None:
    commands = planned("demo", "MODEL=openai-community/gpt2")
    assert not [command for command in commands if "fetch_weights" in command]
    assert "--model openai-community/gpt2" in " ".join(shlex.split(commands[-1]))


def test_the_demo_is_a_command_that_the_program_takes() -> None:
    program, *arguments = shlex.split(planned("demo")[-1])
    assert program == ".venv/bin/promptmill"
    parse(arguments)


@pytest.mark.parametrize("target", ["demo", "test", "test-faults", "check", "format"])
def test_every_install_keeps_to_the_versions_known_to_work(target: str) -> None:
    installs = [command for command in planned(target) if "pip install" in command]
    assert installs
    assert all("-c constraints.txt" in command for command in installs)


@pytest.mark.parametrize("python", ["old-python", "no-python"])
def test_given_no_python_that_is_new_enough_when_made_then_one_line_says_what_to_do(
    tmp_path: Path, python: str
) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    result = make("check", f"PYTHON={tmp_path / python}", folder=tmp_path)

    assert result.returncode != 0
    assert result.stderr.startswith("promptmill needs Python 3.11 or later, and")
    assert not (tmp_path / ".venv").exists()
