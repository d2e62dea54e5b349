"""One honest line at the start of a worker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worker.engine.protocol import EngineInfo
from worker.process import ready_line

INFO = EngineInfo(
    engine="transformers",
    engine_version="5.23",
    model="openai-community/gpt2",
    revision="abc",
    device="cuda:1",
    dtype="bfloat16",
    parameters=124_439_808,
    capacity=256,
    kv_tokens=131_072,
)


def test_given_a_loaded_model_when_it_is_announced_then_the_line_says_all_that_matters() -> None:
    assert ready_line(INFO, "promptmill.gpt2.1234") == (
        "ready: openai-community/gpt2 (124.4M parameters) on cuda:1, bfloat16, "
        "KV cache 131,072 tokens, 256 at once, queue promptmill.gpt2.1234"
    )


def test_given_an_engine_without_bounds_when_it_is_announced_then_the_line_says_so() -> None:
    assert "KV cache unbounded" in ready_line(replace(INFO, kv_tokens=None), "q")


@pytest.mark.parametrize(
    ("parameters", "shown"),
    [(999, "999"), (1_000, "1.0K"), (1_500_000, "1.5M"), (70_553_706_496, "70.6B")],
)
def test_given_a_size_when_it_is_announced_then_it_is_readable(parameters: int, shown: str) -> None:
    assert f"({shown} parameters)" in ready_line(replace(INFO, parameters=parameters), "q")


def test_given_a_model_elsewhere_when_it_is_announced_then_no_size_is_made_up() -> None:
    line = ready_line(replace(INFO, parameters=0, device="api.openai.com"), "q")
    assert line.startswith("ready: openai-community/gpt2 on api.openai.com, ")


def test_given_adapters_when_it_is_announced_then_the_line_names_them() -> None:
    line = ready_line(replace(INFO, adapters={"fin": "0a", "law": "0b"}), "q")
    assert line.endswith(", queue q, adapters fin law")
