"""What `run` must never do: overwrite its input, or pass one engine's texts off as another's."""

from __future__ import annotations

from pathlib import Path

from producer.commands.run_ import _name
from tests.support.processes import promptmill


def test_given_an_output_that_is_the_input_when_run_then_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "same.jsonl"
    file.write_text('{"prompt": "a b"}\n')
    done = promptmill("run", str(file), "--model", "m", "--engine", "echo", "-o", str(file))
    assert done.returncode == 2
    assert f"{file} is an input" in done.stderr
    assert file.read_text() == '{"prompt": "a b"}\n'


def test_given_another_engine_when_run_then_it_is_another_batch() -> None:
    assert _name(None, ("f",), "", fresh=False) != _name(None, ("f",), " echo", fresh=False)
