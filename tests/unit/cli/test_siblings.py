"""Packages of the user's that have promptmill's names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.processes import command, environment

ROOT = Path(__file__).parents[3]


def run(arguments: Sequence[str], first: Path) -> subprocess.CompletedProcess[str]:
    """With `first` before promptmill on Python's path."""
    return subprocess.run(
        arguments,
        cwd=first,
        env=environment({"PYTHONPATH": f"{first}:{ROOT}"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(params=["db/__init__.py", "worker.py"])
def stranger(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / str(request.param)
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine = True\n")
    return file


def test_given_a_package_of_the_same_name_when_the_command_line_runs_then_it_is_named(
    stranger: Path, tmp_path: Path
) -> None:
    done = run(command("list"), tmp_path)
    assert done.returncode == 2
    assert f"is hidden by another one, {stranger}: take that folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_given_a_package_of_the_same_name_when_the_client_is_imported_then_it_is_named(
    stranger: Path, tmp_path: Path
) -> None:
    done = run([sys.executable, "-c", "from producer import Client"], tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert str(stranger) in last


def test_given_a_folder_without_code_when_the_command_line_runs_then_it_is_no_obstacle(
    tmp_path: Path,
) -> None:
    """Python takes a package for a folder of the same name that is none, wherever it lies."""
    (tmp_path / "db").mkdir()
    assert run(command("list"), tmp_path).returncode == 0
