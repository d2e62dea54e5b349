"""Files of the user's that have the names of promptmill's packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import promptmill
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


@pytest.fixture(params=["db/__init__.py", "db.py", "worker.py", "producer.py"])
def stranger(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / str(request.param)
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine = True\n")
    return file


def hidden_by(file: Path) -> str:
    name = file.parent.name if file.name == "__init__.py" else file.stem
    return f"promptmill's package '{name}' is hidden by {file}: rename that"


def test_command_line_names_the_file_that_hides_a_package(stranger: Path, tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "promptmill", "list"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"promptmill: {hidden_by(stranger)}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("code", ["from promptmill import Client", "import promptmill as p; p.Job"])
def test_import_error_names_the_file_that_hides_a_package(
    stranger: Path, tmp_path: Path, code: str
) -> None:
    done = run([sys.executable, "-c", code], tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: {hidden_by(stranger)}")


def test_users_db_beside_their_script_is_named(tmp_path: Path) -> None:
    (tmp_path / "db.py").write_text("rows = [1]\n")
    script = tmp_path / "script.py"
    script.write_text("import db\nprint(db.rows)\nfrom promptmill import Client\n")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "[1]\n"
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: {hidden_by(tmp_path / 'db.py')}")


@pytest.mark.parametrize(
    "arguments", [["worker", "--help"], ["celery", "-A", "worker.app", "report"]]
)
def test_worker_names_the_file_that_hides_a_package(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "db.py").touch()
    done = run([sys.executable, "-m", *arguments], tmp_path)
    assert done.returncode != 0
    assert hidden_by(tmp_path / "db.py") in done.stderr


def test_folder_without_code_is_no_obstacle(tmp_path: Path) -> None:
    """Python takes a package for a folder of the same name that is none, wherever it lies."""
    (tmp_path / "db").mkdir()
    assert run(command("list"), tmp_path).returncode == 0


def test_everything_is_there_under_its_name() -> None:
    for name in promptmill.__all__:
        assert getattr(promptmill, name).__name__ == name
    assert dir(promptmill) == promptmill.__all__
    with pytest.raises(AttributeError, match="has no attribute 'Clint'"):
        promptmill.Clint  # noqa: B018 - it is what is tested
