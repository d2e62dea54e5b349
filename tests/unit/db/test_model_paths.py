"""Names of models that are meant as paths, and what they are nearly."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.model_paths import missing_path


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two models, in the current folder."""
    folder = tmp_path / "models"
    (folder / "gemma3-270m").mkdir(parents=True)
    (folder / "gemma3-270m" / "config.json").write_text("{}")
    (folder / "smollm2-135m-instruct.gguf").write_bytes(b"GGUF")
    (folder / "README.md").write_text("Models.")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("models/smollm2-135m-instuct", "models/smollm2-135m-instruct.gguf"),
        ("models/smollm2", "models/smollm2-135m-instruct.gguf"),
        ("models/Gemma3-270M-", "models/gemma3-270m"),
        ("models/gemma-270m/final", "models/gemma3-270m"),
        ("./models/gemma-270m", "models/gemma3-270m"),
    ],
)
def test_mistyped_path_names_the_nearest_model(model: str, meant: str) -> None:
    assert missing_path(model) == f"no such file or folder: did you mean {meant}?"


def test_mistyped_absolute_path_names_the_nearest_model(models: Path) -> None:
    assert missing_path(f"{models}/gemma3-270") == (
        f"no such file or folder: did you mean {models}/gemma3-270m?"
    )


def test_path_like_no_model_lists_what_is_there() -> None:
    assert missing_path("models/qwen") == (
        "no such file or folder: models holds gemma3-270m, smollm2-135m-instruct.gguf"
    )


def test_folder_called_models_is_no_organisation(models: Path) -> None:
    for entry in ("gemma3-270m/config.json", "smollm2-135m-instruct.gguf"):
        (models / entry).unlink()
    assert missing_path("models/qwen") == "no such file or folder: models holds no model"


def test_folder_called_like_an_organisation_says_how_to_get_the_hubs(models: Path) -> None:
    models.rename("Qwen")
    Path("Qwen/gemma3-270m").rename("Qwen/Qwen3-4B")
    assert missing_path("Qwen/Qwen3-8B") == (
        "no such file or folder: did you mean Qwen/Qwen3-4B? "
        "For the hub's Qwen/Qwen3-8B, run this where there is no folder Qwen"
    )


@pytest.mark.parametrize(
    "model",
    [
        "org/name",
        "gpt2",
        "models/gemma3-270m",
        "models/smollm2-135m-instruct.gguf",
        "code/gpt-oss-20b",
        "org/name:gemma3-270m.gguf",
        "accounts/them/models/llama",
        "/only/at/the/workers",
        "/llama",
    ],
)
def test_name_that_may_be_elsewhere_is_no_missing_path(model: str) -> None:
    Path("code").mkdir()
    Path("code/main.py").write_text("")
    assert missing_path(model) is None


def test_absolute_path_in_a_folder_without_models_may_be_the_workers(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert missing_path(f"{tmp_path}/data/llama") is None
