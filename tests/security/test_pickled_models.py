"""A checkpoint from a stranger: its files are read as data, none of them runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from db.errors import ModelLoadError
from tests.support.checkpoints import Checkpoint
from worker.engine.protocol import EngineConfig
from worker.engine.transformers import loading


class Bomb:
    """Whoever unpickles it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._folder),)


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A checkpoint that the test may poison."""
    return shutil.copytree(checkpoint("gpt2"), tmp_path / "model")


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin", "model.pt", "consolidated.00.pth"],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_given_pickled_weights_alone_when_loaded_then_they_are_refused_unread(
    folder: Path, tmp_path: Path, name: str, protocol: int
) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps({"weight": Bomb(tmp_path / "bomb")}, protocol))
    (folder / "pytorch_model.bin.index.json").write_text(
        f'{{"metadata": {{}}, "weight_map": {{"weight": "{name}"}}}}'
    )
    with pytest.raises(ModelLoadError, match="pickled weights"):
        loading.load(EngineConfig(str(folder), "cpu"))
    assert not (tmp_path / "bomb").exists()


def test_given_pickles_beside_safetensors_when_loaded_then_they_are_left_alone(
    folder: Path, tmp_path: Path
) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "bomb"))
    names = ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl")
    for name in names:
        (folder / name).write_bytes(bomb)
    loading.load(EngineConfig(str(folder), "cpu"))
    assert not (tmp_path / "bomb").exists()


def test_given_a_pickle_under_the_name_of_safetensors_when_loaded_then_it_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "bomb")))
    with pytest.raises(ModelLoadError, match="can't be loaded"):
        loading.load(EngineConfig(str(folder), "cpu"))
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize("name", ["../evil.bin", "evil.bin", "../model.safetensors", "/etc/x", 7])
def test_given_an_index_that_names_a_pickle_or_leads_away_when_loaded_then_it_is_refused(
    folder: Path, tmp_path: Path, name: object
) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    for place in (tmp_path, folder):
        (place / "evil.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "bomb"), 2))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"transformer.wte.weight": name}})
    )
    with pytest.raises(ModelLoadError, match="names something else"):
        loading.load(EngineConfig(str(folder), "cpu"))
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', "[" * 100_000])
def test_given_an_index_that_is_none_when_loaded_then_it_says_so(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelLoadError, match=r"index\.json can't be read"):
        loading.load(EngineConfig(str(folder), "cpu"))


def test_given_a_chat_template_that_reaches_for_python_when_used_then_it_is_a_sandbox(
    folder: Path,
) -> None:
    from jinja2.exceptions import SecurityError

    loaded = loading.load(EngineConfig(str(folder), "cpu"))
    loaded.tokenizer.chat_template = (
        "{{ messages.__class__.__mro__[1].__subclasses__() }}{{ messages[0]['content'] }}"
    )
    with pytest.raises(SecurityError):
        loaded.tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
