"""What tensor_parallel takes, and what it refuses before any process is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import transformers

from db.errors import ModelLoadError, SettingsError
from tests.support.checkpoints import Checkpoint
from tests.support.tiny_models import Kind
from worker.engine.options import tensor_parallel
from worker.engine.protocol import EngineConfig
from worker.engine.registry import create
from worker.engine.transformers.parallel import messages, plan
from worker.engine.transformers.parallel.start import devices_of


def refusal(error: type[Any], model: Path, device: str = "cpu", **options: str) -> str:
    """What a start is refused with, and nothing is left of it."""
    before = psutil.Process().children()
    options = {"tensor_parallel": "2", **options}
    with pytest.raises(error) as failure:
        create("transformers", EngineConfig(str(model), device, options=options)).start()
    assert psutil.Process().children() == before
    assert not torch.distributed.is_initialized()
    message: str = failure.value.message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("kind", "devices", "reason"),
    [
        ("gpt2", "2", "transformers has no plan for the architecture 'gpt2'"),
        ("t5", "2", "it is an encoder-decoder"),
        ("mamba", "2", "it is a state-space model"),
        ("llama-biased", "3", "has 4 heads and 2 key heads, which 3 devices can't share evenly"),
    ],
)
def test_given_a_model_that_cant_be_cut_when_shared_then_the_reason_is_told(
    checkpoint: Checkpoint, kind: Kind, devices: str, reason: str
) -> None:
    assert reason in refusal(ModelLoadError, checkpoint(kind), tensor_parallel=devices)


def test_given_heads_that_dont_divide_when_refused_then_the_numbers_that_do_are_told(
    checkpoint: Checkpoint,
) -> None:
    message = refusal(ModelLoadError, checkpoint("llama-biased"), tensor_parallel="3")
    assert message.endswith("set the engine option tensor_parallel to 1, 2 or 4")


def test_given_no_checkpoint_when_shared_then_the_reason_is_that_of_one_device(
    tmp_path: Path,
) -> None:
    message = refusal(ModelLoadError, tmp_path / "nowhere")
    assert message == f"model folder '{tmp_path / 'nowhere'}' does not exist"


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("cuda:1", {}, "device 'cuda:1' is one device, and tensor_parallel wants more"),
        ("cpu", {"batching": "static"}, "engine option 'batching': static doesn't go together"),
        ("cpu", {"tensor_parallel": "two"}, "'two' is neither auto nor a number of devices"),
        ("cpu", {"tensor_parallel": "0"}, "'0' is neither auto nor a number of devices"),
        ("cpu", {"tensor_paralel": "2"}, "did you mean 'tensor_parallel'?"),
    ],
)
def test_given_a_setting_that_doesnt_go_together_when_shared_then_it_is_named(
    checkpoint: Checkpoint, device: str, options: dict[str, str], message: str
) -> None:
    assert message in refusal(SettingsError, checkpoint("llama-biased"), device, **options)


def test_given_options_of_another_feature_when_shared_then_they_are_named() -> None:
    config = EngineConfig("m", "cpu", options={"tensor_parallel": "2", "something": "new"})
    with pytest.raises(SettingsError) as failure:
        devices_of(config)
    assert failure.value.message == (
        "engine option 'something' doesn't go together with tensor_parallel: leave one out"
    )


def test_given_adapters_when_shared_then_they_are_refused_by_name() -> None:
    adapters = {"poet": "/somewhere"}
    config = EngineConfig("m", "cpu", options={"tensor_parallel": "2"}, adapters=adapters)
    with pytest.raises(SettingsError) as failure:
        devices_of(config)
    assert failure.value.message == (
        "adapter 'poet': adapters don't go together with tensor_parallel; leave one out, or use "
        "the engine vllm"
    )


@pytest.mark.parametrize(
    ("gpus", "device", "option", "devices"),
    [
        (4, "auto", "auto", ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        (4, "cuda", "2", ["cuda:0", "cuda:1"]),
        (1, "auto", "auto", ["cpu"]),  # one, which loading picks
        (0, "auto", "2", ["cpu", "cpu"]),
        (0, "cpu", "auto", ["cpu"]),
        (4, "cuda:3", "1", ["cpu"]),
    ],
)
def test_given_gpus_when_a_model_is_shared_then_these_have_it(
    gpus: int, device: str, option: str, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config = EngineConfig("m", device, options={"tensor_parallel": option})
    assert [str(one) for one in devices_of(config)] == devices


@pytest.mark.parametrize(
    ("gpus", "device", "message"),
    [
        (1, "auto", "2 devices are wanted, and PyTorch sees 1"),
        (2, "cpu", "hide them with CUDA_VISIBLE_DEVICES="),
        (0, "cuda", "device 'cuda' is not there"),
    ],
)
def test_given_too_few_gpus_when_a_model_is_to_be_shared_then_the_error_says_so(
    gpus: int, device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(SettingsError) as failure:
        devices_of(EngineConfig("m", device, options={"tensor_parallel": "2"}))
    assert message in failure.value.message


def test_given_no_option_when_read_then_a_model_has_one_device() -> None:
    assert tensor_parallel({}) == 1
    assert tensor_parallel({"tensor_parallel": "auto"}) is None


def test_given_key_heads_that_are_fewer_when_cut_then_they_are_left_whole(
    checkpoint: Checkpoint,
) -> None:
    folder = str(checkpoint("llama-biased"))
    shape = transformers.AutoConfig.from_pretrained(folder)
    config = EngineConfig(folder, "cpu")
    assert plan.cut(shape, config, 2) is None
    assert plan.cut(shape, config, 4) == {
        f"model.layers.*.self_attn.{name}": "replicate" for name in ("k_proj", "v_proj")
    }


def test_given_a_quantised_checkpoint_when_shared_then_it_is_refused(
    checkpoint: Checkpoint,
) -> None:
    folder = str(checkpoint("llama-biased"))
    shape = transformers.AutoConfig.from_pretrained(folder)
    shape.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(ModelLoadError) as failure:
        plan.cut(shape, EngineConfig(folder, "cpu"), 2)
    assert "unquantised weights only" in failure.value.message


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int32, torch.int64, torch.bool])
def test_given_tensors_when_told_then_they_arrive_as_they_were(dtype: torch.dtype) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    told = {"a": tensor.T, "b": [tensor[:0], None], "c": {"d": torch.tensor(1)}, "e": "text"}
    there = messages.unpack(messages.pack(told), torch.device("cpu"))
    assert torch.equal(there["a"], tensor.T)
    assert there["a"].dtype == dtype
    assert there["b"][0].shape == (0, 3)
    assert there["b"][1] is None
    assert there["c"]["d"].item() == 1
    assert there["e"] == "text"
