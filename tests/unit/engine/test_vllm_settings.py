"""What vLLM is started with; no vLLM is needed to tell."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from db.errors import SettingsError
from worker.engine.protocol import EngineConfig
from worker.engine.registry import create
from worker.engine.vllm_engine.settings import CPU_CAP, Options, arguments, device_ids

GIB = 1024**3


def made(there: str = "cuda", free: int = 100 * GIB, **config: Any) -> dict[str, Any]:
    options = Options.read(config.pop("options", {}))
    return arguments(
        EngineConfig("m", **config),
        options,
        there=there,
        free_memory=free,
        stored_dtype="float32",
    )


def test_given_the_settings_of_a_worker_when_read_then_each_reaches_vllm() -> None:
    found = made(
        max_concurrency=7,
        max_batch_tokens=512,
        kv_memory_fraction=0.5,
        revision="main",
        trust_remote_code=True,
        dtype="bfloat16",
        device="cuda:2",
    )
    assert found["max_num_seqs"] == 7
    assert found["max_num_batched_tokens"] == 512
    assert found["gpu_memory_utilization"] == 0.5
    assert found["revision"] == found["tokenizer_revision"] == "main"
    assert found["trust_remote_code"] is True
    assert found["dtype"] == "bfloat16"
    assert found["device_ids"] == [2]
    assert found["load_format"] == "safetensors"
    assert found["logprobs_mode"] == "raw_logprobs"


def test_given_options_when_read_then_each_reaches_vllm() -> None:
    options = {
        "tensor_parallel": "4",
        "max_model_len": "2048",
        "enforce_eager": "on",
        "kv_memory": "1.5",
        "kv_offload": "8",
        "cpu_offload": "2",
    }
    found = made(options=options)
    assert found["tensor_parallel_size"] == 4
    assert found["max_model_len"] == 2048
    assert found["enforce_eager"] is True
    assert found["kv_cache_memory_bytes"] == GIB * 3 // 2
    assert found["kv_offloading_size"] == 8
    assert found["cpu_offload_gb"] == 2


def test_given_no_dtype_when_read_then_it_is_the_checkpoints_own() -> None:
    assert made()["dtype"] == "float32"


@pytest.mark.parametrize(
    ("there", "free", "config", "memory"),
    [
        ("cpu", 2 * GIB, {}, int(0.4 * GIB)),
        ("cpu", 100 * GIB, {}, CPU_CAP),
        ("cpu", 100 * GIB, {"kv_memory_fraction": 0.5}, 50 * GIB),
        ("cpu", 100 * GIB, {"options": {"kv_memory": "3"}}, 3 * GIB),
        ("cuda", 100 * GIB, {}, None),
        ("cuda", 100 * GIB, {"kv_memory_fraction": 0.5}, None),
    ],
)
def test_given_a_machine_when_asked_then_the_kv_cache_leaves_room_on_a_cpu(
    there: str, free: int, config: dict[str, Any], memory: int | None
) -> None:
    assert made(there, free, **config)["kv_cache_memory_bytes"] == memory


def test_given_a_cpu_when_nobody_says_then_nothing_is_compiled() -> None:
    assert made("cpu")["enforce_eager"] is True
    assert made("cuda")["enforce_eager"] is False
    assert made("cpu", options={"enforce_eager": "off"})["enforce_eager"] is False


@pytest.mark.parametrize(
    ("device", "there", "parallel", "said"),
    [
        ("cuda:0", "cpu", 1, "built for cpu"),
        ("cpu", "cuda", 1, "built for cuda"),
        ("cuda:1", "cuda", 2, "tensor_parallel=2 wants more"),
        ("cuda:x", "cuda", 1, "none of auto, cpu, cuda"),
        ("tpu", "cuda", 1, "none of auto, cpu, cuda"),
    ],
)
def test_given_a_device_that_can_not_be_used_when_asked_then_it_is_named(
    device: str, there: str, parallel: int, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        device_ids(device, there, parallel)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_given_no_number_when_asked_then_vllm_chooses(device: str) -> None:
    assert device_ids(device, "cuda", 2) is None


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tensor_parallel", "0"),
        ("max_model_len", "long"),
        ("enforce_eager", "yes"),
        ("kv_memory", "0"),
        ("kv_offload", "-1"),
    ],
)
def test_given_a_bad_option_when_created_then_it_is_named(option: str, value: str) -> None:
    with pytest.raises(SettingsError, match=option):
        create("vllm", EngineConfig("m", options={option: value}))


def test_given_no_vllm_when_created_then_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(SettingsError, match=r"'\.\[vllm\]'"):
        create("vllm", EngineConfig("m"))
