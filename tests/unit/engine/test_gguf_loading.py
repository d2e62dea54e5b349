"""A GGUF file gives what the checkpoint gives that it was made of, or says why it can't."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from db.checkpoint import Weights, tokenizer_digest
from db.errors import ModelLoadError, SettingsError
from tests.support.checkpoints import Checkpoint
from tests.support.gguf_files import build_llm, write_gguf
from worker.engine.protocol import EngineConfig
from worker.engine.shared.weight_files import refuse_gguf
from worker.engine.transformers import loading
from worker.engine.transformers.loading import LoadedModel

TEXTS = (
    "Hello there, the quick brown  fox's 123 Müller\n\n x",
    "<|im_start|>user\nhi<|im_end|>\n",
    "<mask> <|endoftext|> <s> </s> <unk>",
)


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2 that chats."""
    return build_llm("qwen2", tmp_path_factory.mktemp("llm") / "qwen2")


@pytest.fixture(scope="session")
def file(llm: Path) -> Path:
    return write_gguf(llm, llm.parent / "tiny.gguf")


def load(model: Path, dtype: str = "float32", quantize: str = "none") -> LoadedModel:
    return loading.load(EngineConfig(str(model), "cpu", dtype), quantize)


def refusal(model: str | Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        loading.load(EngineConfig(str(model), "cpu"))
    message = caught.value.message
    assert "\n" not in message
    assert str(model) in message
    return message


def logits(loaded: LoadedModel) -> torch.Tensor:
    ids = torch.arange(5, 45).unsqueeze(0)
    with torch.inference_mode():
        found: torch.Tensor = loaded.model(input_ids=ids).logits
    return found


def assert_same(there: LoadedModel, here: LoadedModel) -> None:
    assert torch.equal(logits(there), logits(here))
    for text in TEXTS:
        ids = here.tokenizer(text)["input_ids"]
        assert ids == there.tokenizer(text)["input_ids"]
        assert max(ids) < here.vocabulary
        assert here.tokenizer.decode(ids) == there.tokenizer.decode(ids)
    assert here.tokenizer.chat_template == there.tokenizer.chat_template
    assert here.context_length == there.context_length
    assert here.parameters == there.parameters
    assert here.vocabulary == there.vocabulary


@pytest.mark.parametrize("kind", ["gpt2", "gemma3-tied"])
def test_given_a_file_when_loaded_then_it_is_the_checkpoint_that_it_was_made_of(
    kind: Any, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    there = load(checkpoint(kind))
    here = load(write_gguf(checkpoint(kind), tmp_path / "model.gguf"))
    assert_same(there, here)
    assert here.end_ids == there.end_ids


def test_given_a_chat_model_when_loaded_then_a_turn_ends_where_the_template_ends_it(
    llm: Path, file: Path
) -> None:
    there, here = load(llm), load(file)
    assert_same(there, here)
    end_of_turn = there.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert here.end_ids == there.end_ids | {end_of_turn}
    chat = [{"role": "user", "content": "hi"}]
    rendered = here.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert here.tokenizer.decode([end_of_turn], skip_special_tokens=True) == ""


@pytest.mark.parametrize(("weights", "off"), [("F16", 0.1), ("Q8_0", 3.0)])
def test_given_weights_of_fewer_bits_when_loaded_then_they_are_unpacked(
    weights: Any, off: float, llm: Path, tmp_path: Path
) -> None:
    here = load(write_gguf(llm, tmp_path / "model.gguf", weights))
    assert 0 < (logits(here) - logits(load(llm))).abs().max() < off
    assert here.parameters == load(llm).parameters


def test_given_no_dtype_when_loaded_then_it_is_bfloat16(file: Path) -> None:
    assert load(file, "auto").dtype == "bfloat16"
    assert load(file, "float16").dtype == "float16"


@pytest.mark.parametrize(
    ("scaling", "metadata"),
    [
        (
            {"rope_type": "linear", "factor": 4.0},
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        ),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 4.0,
                "llama.rope.scaling.original_context_length": 64,
            },
        ),
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
            None,
        ),
    ],
    ids=["linear", "yarn", "llama3"],
)
def test_given_stretched_positions_when_loaded_then_they_are_stretched(
    scaling: dict[str, Any], metadata: dict[str, Any] | None, tmp_path: Path
) -> None:
    plain = build_llm("llama", tmp_path / "plain")
    stretched = shutil.copytree(plain, tmp_path / "stretched")
    shape = json.loads((stretched / "config.json").read_text())
    shape["rope_parameters"] |= scaling
    (stretched / "config.json").write_text(json.dumps(shape))
    there = load(stretched)
    tensors = None
    if metadata is None:  # as llama.cpp stores it: what each frequency is divided by
        own = there.model.model.rotary_emb.inv_freq
        tensors = {"rope_freqs.weight": (load(plain).model.model.rotary_emb.inv_freq / own).numpy()}
    here = load(write_gguf(plain, tmp_path / "m.gguf", metadata=metadata, tensors=tensors))
    assert torch.allclose(logits(there), logits(here), atol=1e-4)
    assert not torch.allclose(logits(load(plain)), logits(here), atol=1e-2)


@pytest.mark.parametrize(
    ("metadata", "tensors", "said"),
    [
        ({"qwen2.rope.scaling.type": "longrope", "qwen2.rope.scaling.factor": 4.0}, {}, "longrope"),
        ({}, {"rope_factors_long.weight": (8,)}, "longrope"),
        ({}, {"rope_freqs.weight": (5,)}, "rope_freqs"),
        ({}, {"blk.0.attn_output.bias": (64,)}, "transformers would leave 64 out"),
    ],
)
def test_given_what_transformers_would_pass_over_when_loaded_then_it_is_refused(
    metadata: dict[str, Any], tensors: dict[str, Any], said: str, llm: Path, tmp_path: Path
) -> None:
    made = {name: np.full(shape, 2, np.float32) for name, shape in tensors.items()}
    assert said in refusal(write_gguf(llm, tmp_path / "m.gguf", metadata=metadata, tensors=made))


def test_given_files_beside_it_when_loaded_then_none_of_them_counts(
    file: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint("gpt2"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "chat_template.jinja").write_text("another")
    (folder / "adapter_config.json").write_text("{}")
    shutil.copy(file, folder / "tiny.gguf")
    for model in (folder, folder / "tiny.gguf"):
        here = load(model)
        assert_same(load(file), here)
        assert here.folder == folder / "tiny.gguf"
        assert here.revision == load(file).revision


def test_given_a_file_when_loaded_then_its_digests_are_of_the_file(file: Path) -> None:
    import hashlib

    here = load(file)
    assert here.revision is not None
    assert len(here.revision) == 12
    assert here.folder == file
    line = f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
    assert Weights.of(file).digest() == hashlib.sha256(line.encode()).hexdigest()
    assert tokenizer_digest(file) is None


def test_given_a_file_of_the_hub_when_loaded_then_it_is_the_commits(
    file: Path, llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--test--tiny"
    old, new = "a" * 40, "b" * 40
    for commit in (old, new):
        (repository / "snapshots" / commit / "Q8").mkdir(parents=True)
    shutil.copy(file, repository / "snapshots" / old / "Q8" / "m.gguf")
    write_gguf(llm, repository / "snapshots" / new / "Q8" / "m.gguf", "Q8_0")
    refs = repository / "refs"
    refs.mkdir()
    (refs / "main").write_text(new)
    (refs / "v1").write_text(old)
    name = "test/tiny:Q8/m.gguf"
    for revision, commit in ((None, new), ("v1", old), (old, old)):
        here = loading.load(EngineConfig(name, "cpu", "float32", revision=revision))
        assert here.revision == commit
        assert here.folder == repository / "snapshots" / commit / "Q8" / "m.gguf"
        assert torch.equal(logits(here), logits(load(file))) == (commit == old)
    for missing in ("test/tiny:other.gguf", "test/none:m.gguf"):
        assert "can't be had from the hub" in refusal(missing)


@pytest.mark.parametrize("bytes_left", [0, 3, 40, 5000, -1])
def test_given_a_file_that_was_cut_off_when_loaded_then_it_says_so(
    bytes_left: int, file: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(file.read_bytes()[:bytes_left])
    message = refusal(broken)
    assert "can't be read, as" in message
    assert "download it again" in message


def test_given_files_that_can_not_be_loaded_when_loaded_then_each_says_why(
    llm: Path, file: Path, tmp_path: Path
) -> None:
    def made(name: str, **changes: Any) -> Path:
        return write_gguf(llm, tmp_path / name, **changes)

    assert "does not exist" in refusal(tmp_path / "gone.gguf")
    assert "one of 3 parts" in refusal(made("m-00001-of-00003.gguf"))
    assert "one of 2 parts" in refusal(made("part.gguf", metadata={"split.count": 2}))
    assert "architecture 'rwkv9'" in refusal(made("strange.gguf", arch="rwkv9"))
    lacking = refusal(made("lacks.gguf", leave_out="blk.1.ffn_up.weight"))
    assert "lacks 1 of its weights (model.layers.1.mlp.up_proj.weight" in lacking
    assert "the GGUF file is not all of a model" in lacking
    (tmp_path / "here").mkdir()
    assert f"name its file as {tmp_path}/here/m.gguf" in refusal(f"{tmp_path}/here:m.gguf")
    shutil.copy(file, tmp_path / "here" / "b.gguf")
    shutil.copy(file, tmp_path / "here" / "a.gguf")
    assert "holds 2 GGUF files (a.gguf, b.gguf)" in refusal(tmp_path / "here")


def test_given_no_package_when_loaded_then_the_extra_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "worker.engine.transformers.gguf.loading.find_spec",
        lambda name: None if name == "gguf" else name,
    )
    assert "pip install -e '.[worker,gguf]'" in refusal(file)


def test_given_a_quantization_when_loaded_then_it_is_refused(file: Path) -> None:
    with pytest.raises(ModelLoadError, match="leave out the engine option quantization=bnb-4bit"):
        load(file, quantize="bnb-4bit")
    with pytest.raises(SettingsError, match="dtype 'int3'"):
        load(file, "int3")


@pytest.mark.parametrize("engine", ["keras", "vllm"])
def test_given_another_engine_when_loaded_then_it_says_that_it_reads_none(
    engine: str, file: Path
) -> None:
    for model in (str(file), "org/name:m.gguf", "/not/here.gguf"):
        with pytest.raises(ModelLoadError, match=f"the engine '{engine}' does not read"):
            refuse_gguf(engine, model)
    refuse_gguf(engine, "org/name")


def test_given_a_large_vocabulary_when_loaded_then_it_is_stepped_over(
    llm: Path, tmp_path: Path
) -> None:
    from worker.engine.transformers.gguf.reading import quick_reader

    gguf = sys.modules["gguf"]
    words = [f"w{at}" for at in range(5000)]
    made = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(made, "llama")
    writer.add_array("a.words", words)
    writer.add_array("a.numbers", [float(at) for at in range(5000)])
    writer.add_array("a.few", [1, 2, 3])
    writer.add_tensor("t", np.ones((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    own = gguf.GGUFReader
    with quick_reader():
        reader = gguf.GGUFReader(made)
    assert gguf.GGUFReader is own
    assert [len(reader.fields[f"a.{name}"].data) for name in ("words", "numbers")] == [5000, 5000]
    assert len(reader.fields["a.words"].parts) < 10
    assert reader.fields["a.few"].contents() == [1, 2, 3]
    assert np.array_equal(reader.tensors[0].data, np.ones((4, 4), np.float32))
