"""Digests of a model's files: what they cover, what they cost the second time."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from db import checkpoint
from db.checkpoint import Weights, tokenizer_digest, weight_files
from worker.fingerprint import Fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of two shards and an unused third file, with a tokenizer."""
    made = tmp_path / "model"
    made.mkdir()
    shards = ("a.safetensors", "b.safetensors")
    for name in (*shards, "unused.safetensors"):
        (made / name).write_bytes(name.encode() * 1000)
    index = {"weight_map": dict(zip(("y", "x", "z"), (*shards, shards[0]), strict=True))}
    (made / "model.safetensors.index.json").write_text(json.dumps(index))
    (made / "tokenizer.json").write_text("{}")
    return made


def shell(folder: Path, files: str) -> str:
    """What a user's own tools say of these files."""
    done = subprocess.run(
        f"sha256sum {files} | sha256sum", shell=True, cwd=folder, capture_output=True, check=True
    )
    return done.stdout.split()[0].decode()


def digest(folder: Path, memory: Path | None = None) -> str | None:
    return Weights.of(folder).digest(memory)


def test_given_shards_when_digested_then_it_is_what_sha256sum_says_of_those_loaded(
    folder: Path,
) -> None:
    assert digest(folder) == shell(folder, "a.safetensors b.safetensors")
    (folder / "unused.safetensors").write_bytes(b"other")
    assert digest(folder) == shell(folder, "a.safetensors b.safetensors")


def test_given_a_model_in_one_file_when_digested_then_it_is_what_sha256sum_says_of_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"weights and tokenizer")
    (tmp_path / "tokenizer.json").write_text("of another model")
    made = Fingerprint(file, tmp_path / "memory")
    assert (made.weights(), made.tokenizer) == (shell(tmp_path, "tiny.gguf"), None)
    file.write_bytes(b"newer")
    assert made.weights() is None


def test_given_no_index_when_digested_then_the_single_file_counts_else_all(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()
    names = [file.name for file in weight_files(folder)]
    assert names == ["a.safetensors", "b.safetensors", "unused.safetensors"]
    (folder / "model.safetensors").write_bytes(b"all in one")
    assert digest(folder) == shell(folder, "model.safetensors")


def test_given_one_changed_byte_of_the_same_size_when_digested_then_it_is_another(
    folder: Path, tmp_path: Path
) -> None:
    before = digest(folder, tmp_path / "memory")
    file = folder / "b.safetensors"
    times = file.stat()
    with file.open("r+b") as opened:
        opened.seek(500)
        opened.write(b"!")
    # Whoever sets the old times back does not fool the memory: nobody sets the change time.
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = digest(folder, tmp_path / "memory")
    assert after != before
    assert after == shell(folder, "a.safetensors b.safetensors")


def test_given_a_memory_when_digested_again_then_no_file_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "home" / "digests"
    before = digest(folder, memory)
    assert memory.stat().st_mode & 0o777 == 0o700

    def unread(_file: Path) -> str:
        raise AssertionError("it was read")

    monkeypatch.setattr(checkpoint, "_sha256", unread)
    assert digest(folder, memory) == before


def test_given_a_memory_that_can_not_be_written_when_digested_then_it_is_done_without(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert digest(folder, tmp_path / "file" / "memory") == digest(folder)


def test_given_weights_that_change_after_loading_when_digested_then_nobody_claims_to_know(
    folder: Path,
) -> None:
    loaded = Weights.of(folder)
    (folder / "a.safetensors").write_bytes(b"newer")
    assert loaded.digest() is None


def test_given_a_chat_template_when_it_changes_then_the_tokenizer_is_another(
    folder: Path, tmp_path: Path
) -> None:
    assert tokenizer_digest(folder) == shell(folder, "tokenizer.json")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_digest(folder) == shell(folder, "chat_template.jinja tokenizer.json")
    assert tokenizer_digest(tmp_path) is None


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": {"x": "missing.safetensors"}}'])
def test_given_weights_that_can_not_be_told_when_asked_then_it_says_so_and_goes_on(
    index: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "model.safetensors.index.json").write_text(index)
    made = Fingerprint(folder, tmp_path / "memory")
    assert made.weights() is None
    assert made.tokenizer == shell(folder, "tokenizer.json")
    assert "results will not tell their weights" in caplog.text


def test_given_no_files_here_when_asked_then_nothing_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    for folder in (None, tmp_path):
        made = Fingerprint(folder, tmp_path / "memory")
        made.start(told.append)
        made.wait(30)
        assert (made.tokenizer, made.weights()) == (None, None)
    assert told == []
