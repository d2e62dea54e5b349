"""examples/fetch_weights.py around the conversion itself, which `make demo` runs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import threading
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "fetch_weights.py"

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with every package installed and a conversion of no time."""
    spec = importlib.util.spec_from_file_location("fetch_weights", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "find_spec", lambda name: spec)
    monkeypatch.setattr(module, "convert", write_checkpoint)
    return module


def write_checkpoint(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


def test_given_no_folder_when_run_then_the_checkpoint_appears_under_its_name(
    script: ModuleType, tmp_path: Path
) -> None:
    target = tmp_path / "models" / "gemma"
    assert script.main([str(target)]) == 0
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in target.parent.iterdir() if path.suffix == ".partial"] == []


def test_given_a_checkpoint_when_run_again_then_nothing_is_converted(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path)
    monkeypatch.setattr(script, "build", lambda target: pytest.fail("it was built again"))
    assert script.main([str(tmp_path)]) == 0


def test_given_the_rest_of_a_killed_run_when_run_again_then_it_is_replaced(
    script: ModuleType, tmp_path: Path
) -> None:
    rest = tmp_path / ".gemma.partial"
    rest.mkdir()
    (rest / "model.safetensors.half").touch()
    assert script.main([str(tmp_path / "gemma")]) == 0
    assert not rest.exists()
    assert not (tmp_path / "gemma" / "model.safetensors.half").exists()


def test_given_an_interrupt_when_it_converts_then_nothing_is_kept(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path) -> None:
        write_checkpoint(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "convert", interrupted)
    assert script.main([str(tmp_path / "gemma")]) == 130
    assert [path.name for path in tmp_path.iterdir()] == [".gemma.lock"]


def test_given_a_full_disk_when_run_then_one_line_says_what_is_needed(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10**6))
    assert script.main([str(tmp_path / "gemma")]) == 1
    assert capsys.readouterr().err == (
        f"fetch_weights: {tmp_path} has 1 MB free and 900 MB are needed: "
        "make room, or name a folder elsewhere\n"
    )


def test_given_no_extras_when_run_then_one_line_says_what_to_install(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "find_spec", lambda name: None if name == "gguf" else object())
    assert script.main([str(tmp_path / "gemma")]) == 1
    assert capsys.readouterr().err == (
        "fetch_weights: gguf not installed: pip install -e '.[worker,demo]' -c constraints.txt\n"
    )


def test_given_a_folder_with_something_else_when_run_then_it_is_left_alone(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    assert script.main([str(tmp_path)]) == 1
    assert "exists and is no checkpoint" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_given_a_file_where_a_folder_is_due_when_run_then_the_message_names_it(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert script.main([str(tmp_path / "file" / "gemma")]) == 1
    assert capsys.readouterr().err.startswith("fetch_weights: can't write")


def test_long_step_reports_that_it_is_still_working(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    twice = threading.Event()

    def record(line: str) -> None:
        lines.append(line)
        if len(lines) == 3:
            twice.set()

    monkeypatch.setattr(script, "REPORT_INTERVAL", 0.01)
    monkeypatch.setattr(script, "say", record)
    with script.step("2/3 reading the tokenizer"):
        assert twice.wait(60)
    assert lines[0] == "2/3 reading the tokenizer"
    assert all(re.fullmatch(r"2/3 still working: \d+ s so far", line) for line in lines[1:])
    assert "step 2/3" not in {thread.name for thread in threading.enumerate()}
