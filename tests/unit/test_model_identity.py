"""The model that would run now beside the ones that workers had loaded."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.checkpoint import Weights, files_digest, folder_digest, tokenizer_digest
from db.records import ServedModel
from producer.model_identity import ModelNow

HEADER = b"\x02\0\0\0\0\0\0\0{}"
COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(HEADER + b"one")
    return folder


def served(folder: Path, **changes: Any) -> ServedModel:
    """What a worker leaves that had loaded the folder as it is now."""
    made = ServedModel(
        worker="w",
        engine="transformers",
        revision=folder_digest(folder),
        weights=Weights.of(folder).digest(),
        tokenizer=tokenizer_digest(folder),
        adapters=None,
        started_at=time.time() + 60,
    )
    return replace(made, **changes)


def change(folder: Path | str, before: ServedModel, **options: Any) -> str | None:
    memory = Path("/proc/no-such-folder")  # nothing can be remembered there
    arguments = {"revision": None, "adapters": {}, "memory": memory, **options}
    return ModelNow(str(folder), **arguments).change_since(before)


def test_same_files_are_the_same_model(folder: Path) -> None:
    assert change(folder, served(folder)) is None


def test_touched_file_with_same_bytes_is_the_same_model(folder: Path) -> None:
    before = served(folder)
    os.utime(folder / "model.safetensors", (1, 1))
    assert change(folder, before) is None


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model.safetensors", HEADER + b"two", "its weights are others"),
        ("model.safetensors", HEADER + b"three", "its config, or the layout"),
        ("config.json", b'{"a": 1}', "its config, or the layout"),
        ("generation_config.json", b"{}", "its config, or the layout"),
        ("tokenizer.json", b'{"a": 1}', "its tokenizer or chat template"),
        ("chat_template.jinja", b"{{ x }}", "its tokenizer or chat template"),
    ],
)
def test_changed_file_is_another_model(folder: Path, file: str, content: bytes, said: str) -> None:
    before = served(folder)
    (folder / file).write_bytes(content)
    found = change(folder, before)
    assert found is not None
    assert found.startswith(said)


def test_unknown_weights_are_judged_by_their_times(folder: Path) -> None:
    unknown = served(folder, weights=None)
    assert change(folder, unknown) is None
    earlier = replace(unknown, started_at=time.time() - 60)
    assert change(folder, earlier) == "its weight files were written anew"


def test_weights_are_read_once(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    before, memory = served(folder), tmp_path / "memory"
    assert change(folder, before, memory=memory) is None

    def never(_file: Path) -> str:
        raise AssertionError("a file was read again")

    monkeypatch.setattr("db.checkpoint._sha256", never)
    monkeypatch.setattr("producer.model_identity.tokenizer_digest", lambda _: before.tokenizer)
    assert change(folder, before, memory=memory) is None


def test_changed_adapter_is_another_model(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    files = [adapter / "adapter_config.json", adapter / "adapter_model.safetensors"]
    for file in files:
        file.write_text("{}")
    digests = json.dumps({"legal": files_digest(adapter, files)})
    before = served(folder, adapters=digests)
    given = {"adapters": {"legal": str(adapter)}}
    assert change(folder, before, **given) is None
    files[1].write_text("{ }")
    assert change(folder, before, **given) == "adapter 'legal' is another"


@pytest.mark.parametrize(
    ("revision", "said"),
    [(None, "its revision is bbbbbbbbbbbb, and was aaaaaaaaaaaa"), (COMMITS[0], None)],
)
def test_branch_that_moved_in_the_cache_is_another_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None, said: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refs = tmp_path / "models--org--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMITS[1])
    before = served(folder, revision=COMMITS[0])
    assert change("org/model", before, revision=revision) == said


def test_model_that_is_nowhere_can_not_be_compared(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert change("org/model", served(folder, revision=COMMITS[0])) is None
