"""Every way in which a model can't be loaded says so in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from db.checkpoint import folder_digest
from db.errors import ModelLoadError, SettingsError
from tests.support.checkpoints import Checkpoint
from worker.engine.protocol import EngineConfig
from worker.engine.shared import metadata
from worker.engine.transformers import loading


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A checkpoint that the test may damage."""
    return shutil.copytree(checkpoint("gpt2"), tmp_path / "model")


def refusal(model: str | Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        loading.load(EngineConfig(str(model), "cpu"))
    message = caught.value.message
    assert "\n" not in message
    assert str(model) in message
    return message


def test_given_a_folder_that_is_not_there_when_loaded_then_it_says_so(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nothing")


def test_given_an_empty_folder_when_loaded_then_config_json_is_missed(tmp_path: Path) -> None:
    assert "config.json" in refusal(tmp_path)


def test_given_a_file_when_loaded_then_it_asks_for_the_folder(folder: Path) -> None:
    assert "name the folder" in refusal(folder / "config.json")


def test_given_a_hub_id_that_can_not_be_reached_when_loaded_then_it_says_what_to_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal("no-such-owner/no-such-model")
    assert "neither a folder nor a model id that can be reached" in message


def test_given_pickled_weights_only_when_loaded_then_they_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    assert "pickled weights" in refusal(folder)


def test_given_no_weights_when_loaded_then_they_are_missed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no weights" in refusal(folder)


def test_given_broken_weights_when_loaded_then_it_says_so(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x00" * 64)
    assert "can't be loaded" in refusal(folder)


def test_given_weights_that_do_not_fit_the_config_when_loaded_then_it_says_so(folder: Path) -> None:
    shape = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**shape, "n_embd": 128}))
    assert "can't be loaded" in refusal(folder)


def test_given_weights_that_are_incomplete_when_loaded_then_what_is_missing_is_named(
    folder: Path,
) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "transformer.h.1.mlp.c_fc.weight" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "no_such_thing"}'])
def test_given_a_broken_config_when_loaded_then_it_says_so(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "can't be loaded" in refusal(folder)


def test_given_no_tokenizer_when_loaded_then_it_is_missed(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert "tokenizer.json" in refusal(folder)


def test_given_a_model_with_its_own_code_when_loaded_then_trust_is_asked_for(folder: Path) -> None:
    shape = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    own = {**shape, "model_type": "own", "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(own))
    (folder / "code.py").write_text("raise SystemExit('this code must not run')")
    assert "--trust-remote-code" in refusal(folder)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "gpu0", ""])
def test_given_a_device_that_is_not_there_when_loaded_then_it_is_named(
    folder: Path, device: str
) -> None:
    with pytest.raises(SettingsError, match=f"device '{device}'"):
        loading.load(EngineConfig(str(folder), device))


def test_given_a_dtype_that_is_none_when_loaded_then_it_is_named(folder: Path) -> None:
    with pytest.raises(SettingsError, match="dtype 'int3'"):
        loading.load(EngineConfig(str(folder), "cpu", "int3"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_given_a_dtype_when_loaded_then_the_model_has_it(folder: Path, dtype: str) -> None:
    loaded = loading.load(EngineConfig(str(folder), "cpu", dtype))
    assert loaded.dtype == dtype
    assert loaded.device == torch.device("cpu")
    assert not loaded.model.training


def test_given_a_folder_when_changed_then_its_digest_changes(folder: Path) -> None:
    before = folder_digest(folder)
    assert before == folder_digest(folder)
    with (folder / "model.safetensors").open("ab") as weights:
        weights.write(b"\x00")
    grown = folder_digest(folder)
    (folder / "config.json").write_text("{}")
    assert len({before, grown, folder_digest(folder)}) == 3


def shape(**values: int) -> SimpleNamespace:
    text = SimpleNamespace(**values)
    return SimpleNamespace(get_text_config=lambda: text)


@pytest.mark.parametrize(
    ("values", "tokenizer_limit", "expected"),
    [
        ({"max_position_embeddings": 1024}, 512, 1024),
        ({"n_positions": 2048}, int(1e30), 2048),
        ({}, 512, 512),
        ({}, int(1e30), None),
        ({"max_position_embeddings": -1}, 77, 77),
    ],
)
def test_given_limits_when_asked_for_the_context_then_the_models_own_counts(
    values: dict[str, int], tokenizer_limit: int, expected: int | None
) -> None:
    tokenizer = SimpleNamespace(model_max_length=tokenizer_limit)
    assert metadata.context_length(shape(**values), tokenizer) == expected


def test_given_end_tokens_in_several_places_when_asked_then_the_generation_config_counts() -> None:
    tokenizer = SimpleNamespace(eos_token_id=3)
    model = SimpleNamespace(
        config=shape(eos_token_id=2), generation_config=SimpleNamespace(eos_token_id=[1, 106])
    )
    assert metadata.end_ids(model, tokenizer) == {1, 106}
    model.generation_config = None
    assert metadata.end_ids(model, tokenizer) == {2}
    model.config = shape()
    assert metadata.end_ids(model, tokenizer) == {3}


def test_given_a_branch_that_moves_while_it_is_loaded_then_all_is_of_the_commit_that_was_found(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--test--tiny"
    old, new = "a" * 40, "b" * 40
    shutil.copytree(checkpoint("gpt2"), repository / "snapshots" / old)
    shutil.copytree(checkpoint("gemma3"), repository / "snapshots" / new)
    branch = repository / "refs" / "main"
    branch.parent.mkdir()
    branch.write_text(old)

    def moved(model: str) -> None:
        branch.write_text(new)

    monkeypatch.setattr("worker.engine.transformers.loading.check_weights", moved)
    loaded = loading.load(EngineConfig("test/tiny", "cpu"))
    assert loaded.model.config.model_type == "gpt2"
    assert loaded.tokenizer("x")["input_ids"][0] != loaded.tokenizer.convert_tokens_to_ids("<bos>")
    assert (loaded.revision, loaded.folder) == (old, repository / "snapshots" / old)
