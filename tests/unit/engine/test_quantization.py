"""Packed weights: of a checkpoint, or packed while it is loaded."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from db.errors import ModelLoadError, SettingsError
from db.sampling import SamplingParams
from tests.support.checkpoints import Checkpoint
from tests.support.gpu import skip_without
from worker.engine.protocol import Completed, EngineConfig, EngineInfo, Outcome, Request
from worker.engine.transformers import loading, paged, quantization
from worker.engine.transformers.engine import TransformersEngine
from worker.engine.transformers.projections import Projections

PROMPTS = ("Hello there", "The quick brown fox", "One, two")


@pytest.fixture
def bitsandbytes() -> Any:
    return pytest.importorskip("bitsandbytes")


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A checkpoint that the test may change."""
    return shutil.copytree(checkpoint("gemma3"), tmp_path / "model")


def quantised(folder: Path, **config: Any) -> Path:
    """The checkpoint, which now says of itself that it is packed."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": config}))
    return folder


def packed(folder: Path, into: Path, bits: int) -> Path:
    """The same as a checkpoint whose weights are packed by bitsandbytes."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    shutil.copytree(folder, into)
    (into / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=how, dtype=torch.float32, device_map={"": "cpu"}
    )
    model.save_pretrained(into)
    return into


def texts(
    model: Path, dtype: str = "float32", device: str = "cpu", **options: str
) -> tuple[EngineInfo, list[str], list[str]]:
    """What was loaded; what the engine writes, and what `generate` of the same model does."""
    engine = TransformersEngine(EngineConfig(str(model), device, dtype, options=options))
    info = engine.start()
    try:
        written = [_written(engine, prompt) for prompt in PROMPTS]
    finally:
        engine.close()
    loaded = loading.load(
        EngineConfig(str(model), device, dtype), options.get("quantization", "none")
    )
    plain = []
    for prompt in PROMPTS:
        ids = torch.tensor([loaded.tokenizer(prompt)["input_ids"]], device=loaded.device)
        found = loaded.model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)
        own = found[0][1 if loaded.encoder_decoder else ids.shape[1] :]
        plain.append(loaded.tokenizer.decode(own, skip_special_tokens=True))
    return info, written, plain


def _written(engine: TransformersEngine, prompt: str) -> str:
    done = threading.Event()
    outcomes: list[Outcome] = []
    params = SamplingParams(temperature=0.0, max_tokens=12)

    def on_done(_: str, outcome: Outcome) -> None:
        outcomes.append(outcome)
        done.set()

    engine.submit(Request(id=prompt, params=params, seed=1, prompt=prompt), on_done)
    assert done.wait(60)
    assert isinstance(outcomes[0], Completed)
    return outcomes[0].samples[0].text


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize("how", ["bnb-4bit", "bnb-8bit"])
def test_given_an_option_when_loaded_then_it_writes_what_the_packed_model_writes(
    how: str, folder: Path
) -> None:
    info, written, plain = texts(folder, quantization=how)
    assert written == plain
    assert info.dtype == f"float32, {how}"
    assert len(info.dtype) <= 20
    assert info.backend == "continuous, packed attention"
    assert info.parameters == loading.load(EngineConfig(str(folder), "cpu")).parameters


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize("how", ["bnb-4bit", "bnb-8bit"])
def test_given_a_gpu_and_an_option_when_loaded_then_it_writes_what_the_packed_model_writes(
    how: str, folder: Path
) -> None:
    skip_without("cuda")
    info, written, plain = texts(folder, "bfloat16", "cuda", quantization=how)
    assert written == plain
    assert (info.dtype, info.backend) == (f"bfloat16, {how}", "continuous, packed attention")


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize("bits", [4, 8])
def test_given_a_packed_checkpoint_when_loaded_then_it_writes_what_the_packed_model_writes(
    bits: int, folder: Path, tmp_path: Path
) -> None:
    stored = packed(folder, tmp_path / "packed", bits)
    info, written, plain = texts(stored)
    assert written == plain
    assert info.dtype == "float32, bnb"
    assert info.parameters == loading.load(EngineConfig(str(folder), "cpu")).parameters
    with pytest.raises(ModelLoadError, match="is quantised already"):
        loading.load(EngineConfig(str(stored), "cpu"), "bnb-4bit")


def test_given_a_checkpoint_of_torchao_when_loaded_then_it_writes_what_the_packed_model_writes(
    folder: Path, tmp_path: Path
) -> None:
    made = pytest.importorskip("torchao.quantization")
    from transformers import AutoModelForCausalLM, TorchAoConfig

    stored = shutil.copytree(folder, tmp_path / "packed")
    how = TorchAoConfig(made.Int8WeightOnlyConfig())
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=how, dtype=torch.float32, device_map={"": "cpu"}
    )
    model.save_pretrained(stored)
    info, written, plain = texts(stored)
    assert written == plain
    assert info.dtype == "float32, torchao"


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_given_other_kinds_of_models_when_packed_then_they_run(
    kind: Any, checkpoint: Checkpoint
) -> None:
    info, written, plain = texts(checkpoint(kind), quantization="bnb-4bit")
    assert written == plain
    assert info.dtype == "float32, bnb-4bit"


@pytest.mark.parametrize(
    ("dtype", "width", "depth", "fused"),
    [
        (torch.bfloat16, 64, 128, True),
        (torch.float32, 64, 128, False),
        (torch.bfloat16, 48, 128, False),
        (torch.bfloat16, 64, 96, False),
    ],
    ids=["fits", "another-type", "odd-outputs", "odd-inputs"],
)
def test_given_a_fused_kernel_when_kernels_are_chosen_then_it_is_for_what_it_computes_alone(
    dtype: torch.dtype, width: int, depth: int, fused: bool, bitsandbytes: Any
) -> None:
    layer = bitsandbytes.nn.Linear4bit(depth, width, compute_dtype=dtype)
    layer.support_avx512bf16_for_cpu = True  # as on a processor that has it
    quantization.choose_kernels(torch.nn.Sequential(layer))
    assert layer.support_avx512bf16_for_cpu is fused


@pytest.mark.usefixtures("bitsandbytes")
def test_given_a_model_that_reaches_into_its_weights_when_packed_then_it_is_refused(
    checkpoint: Checkpoint,
) -> None:
    with pytest.raises(ModelLoadError, match="does not run with its weights packed"):
        loading.load(EngineConfig(str(checkpoint("mamba")), "cpu"), "bnb-4bit")


@pytest.mark.usefixtures("bitsandbytes")
def test_given_packed_weights_that_are_incomplete_when_loaded_then_it_says_so(
    folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    stored = packed(folder, tmp_path / "packed", 4)
    weights = load_file(stored / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    left = {key: value for key, value in weights.items() if not key.startswith(name)}
    save_file(left, stored / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match="lacks some of its packed weights"):
        loading.load(EngineConfig(str(stored), "cpu"))


@pytest.mark.usefixtures("bitsandbytes")
def test_given_packed_layers_when_projections_are_replaced_then_they_are_left_alone(
    folder: Path,
) -> None:
    model = loading.load(EngineConfig(str(folder), "cpu", "float32"), "bnb-4bit").model
    Projections(model, 4)
    replaced = [name for name, module in model.named_modules() if "forward" in module.__dict__]
    assert replaced == ["lm_head"]
    assert not paged.capturable(model)


def test_given_a_weight_that_packs_itself_when_projections_are_replaced_then_it_is_left_alone() -> (
    None
):
    class Packed(torch.nn.Parameter):
        pass

    model: Any = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model.get_output_embeddings = lambda: None
    model[0].weight = Packed(torch.zeros(4, 4))
    model[1].forward = model[1].forward
    own = model[1].forward
    Projections(model, 4).remove()
    assert model[1].forward is own
    Projections(model, 4)
    assert "forward" not in model[0].__dict__


def test_given_no_package_when_a_model_is_packed_then_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(ModelLoadError, match=r"pip install -e '\.\[quantized\]'"):
        loading.load(EngineConfig(str(folder), "cpu"), "bnb-8bit")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq, which needs optimum and gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, "pip install gptqmodel"),
        ({"quant_method": "compressed-tensors"}, "pip install compressed-tensors"),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "pip install torchao"),
        ({"quant_method": "hqq"}, "pip install hqq"),
        ({"quant_method": "quanto"}, "pip install optimum-quanto"),
        ({"load_in_4bit": True}, r"pip install -e '.[quantized]'"),
        ({"quant_method": "new-fashion"}, "with 'new-fashion', which this transformers does not"),
        ({"bits": 4}, "with 'unknown', which this transformers does not know"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_given_a_checkpoint_whose_packages_are_missing_when_loaded_then_they_are_named(
    config: dict[str, Any], said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(ModelLoadError) as caught:
        loading.load(EngineConfig(str(quantised(folder, **config)), "cpu"))
    assert said in caught.value.message
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message


def test_given_long_names_of_methods_when_recorded_then_they_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: name)
    text = SimpleNamespace()
    for method in ("compressed-tensors", "bitsandbytes", "fouroversix", "auto-round"):
        shape = SimpleNamespace(
            quantization_config={"quant_method": method}, get_text_config=lambda: text
        )
        found = quantization.plan("m", shape, "none", "auto")
        assert found is not None
        assert found.config is None
        assert len(f"bfloat16, {found.name}") <= 20
        assert found.name not in quantization.CHOICES


def test_given_a_word_that_is_none_when_an_engine_is_made_then_it_is_refused() -> None:
    with pytest.raises(SettingsError, match="'int3' is not one of bnb-4bit, bnb-8bit, none"):
        TransformersEngine(EngineConfig("m", "cpu", options={"quantization": "int3"}))


@pytest.mark.parametrize(("compileable", "expected"), [(True, True), (False, False)])
def test_given_what_transformers_says_when_graphs_are_wanted_then_it_counts(
    compileable: bool, expected: bool
) -> None:
    model = SimpleNamespace(hf_quantizer=SimpleNamespace(is_compileable=compileable))
    assert paged.capturable(model) is expected
    assert paged.capturable(SimpleNamespace())
