"""Help that helps and is quick, and a producer that needs no model library."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest
from click.testing import CliRunner

from producer.cli import COMMANDS, main
from tests.support.processes import environment

_LEAVES = [["db", "upgrade"] if name == "db" else [name] for name in COMMANDS]


@pytest.mark.parametrize("path", _LEAVES, ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_given_a_command_when_asked_for_help_then_there_is_an_example(
    path: list[str], option: str
) -> None:
    done = CliRunner().invoke(main, [*path, option], prog_name="promptmill")
    assert done.exit_code == 0
    usage, example = done.stdout.split("Example", maxsplit=1)
    assert usage.startswith(f"Usage: promptmill {' '.join(path)} ")
    assert f"promptmill {' '.join(path)}" in example


def test_when_asked_for_help_then_every_command_is_told_in_a_line() -> None:
    done = CliRunner().invoke(main, ["--help"], prog_name="promptmill")
    listed = done.stdout.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in listed[: len(COMMANDS)]] == list(COMMANDS)


def test_given_an_installed_package_when_asked_for_its_version_then_it_tells() -> None:
    try:
        version = metadata.version("promptmill")
    except metadata.PackageNotFoundError:
        pytest.skip("promptmill is not installed here")
    done = CliRunner().invoke(main, ["--version"], prog_name="promptmill")
    assert done.stdout == f"promptmill, version {version}\n"


def _modules(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has imported after running `code`."""
    tail = "import json, sys; print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tail}"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


_HELP = """
import sys
from producer.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code
"""


def test_when_help_is_shown_then_nothing_heavy_is_imported() -> None:
    heavy = {"torch", "transformers", "sqlalchemy", "celery", "kombu", "pyarrow", "fsspec"}
    assert _modules(_HELP) & heavy == set()


def test_when_a_producer_is_imported_then_no_model_library_is() -> None:
    every = "; ".join(f"import producer.commands.{name}_" for name in COMMANDS)
    code = f"import db.database, db.migrate, producer.client, worker.app, worker.tasks; {every}"
    models = {"torch", "transformers", "safetensors", "accelerate", "tokenizers", "vllm", "keras"}
    assert _modules(code) & models == set()
