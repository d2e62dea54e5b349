from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AttentionInterface
from transformers.generation.continuous_batching import model_runner

from db.errors import ModelLoadError
from tests.support.checkpoints import Checkpoint
from tests.support.collector import completed, request
from worker.engine.protocol import EngineConfig
from worker.engine.shared.backend import Traits, why_not_continuous
from worker.engine.shared.padded import pick_batch
from worker.engine.transformers import attention, paged
from worker.engine.transformers.engine import TransformersEngine

PLAIN = Traits(
    encoder_decoder=False,
    stateful=False,
    attention_interface=True,
    attention_kinds=frozenset({"full_attention", "sliding_attention"}),
)


@pytest.mark.parametrize(
    ("traits", "reason"),
    [
        (PLAIN, None),
        (Traits(True, False, True, PLAIN.attention_kinds), "encoder-decoder"),
        (Traits(False, True, True, PLAIN.attention_kinds), "state-space"),
        (Traits(False, False, False, PLAIN.attention_kinds), "attention interface"),
        (Traits(False, False, True, frozenset({"chunked_attention"})), "chunked_attention"),
    ],
)
def test_given_traits_when_asked_then_the_reason_against_continuous_batching_is_named(
    traits: Traits, reason: str | None
) -> None:
    answer = why_not_continuous(traits)
    assert answer is None if reason is None else reason in (answer or "")


def test_given_a_model_that_can_not_be_paged_when_continuous_is_forced_then_it_is_refused(
    checkpoint: Checkpoint,
) -> None:
    config = EngineConfig(str(checkpoint("mamba")), "cpu", options={"batching": "continuous"})
    with pytest.raises(ModelLoadError, match="state-space"):
        TransformersEngine(config).start()


def test_given_another_transformers_when_checked_then_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paged.check_version()
    monkeypatch.delattr(model_runner.ModelRunner, "maybe_pad_inputs")
    with pytest.raises(ModelLoadError, match=r"ModelRunner\.maybe_pad_inputs.*transformers>=5\.23"):
        paged.check_version()


class Prompt:
    def __init__(self, length: int) -> None:
        self.prompt_ids = range(length)


def lengths(pending: Sequence[int], size: int, same_length: bool) -> list[int]:
    batch = pick_batch([Prompt(n) for n in pending], size, same_length)  # type: ignore[misc]
    return [len(one.prompt_ids) for one in batch]


def test_given_prompts_of_like_length_when_picked_then_the_oldest_leads() -> None:
    assert lengths([40, 100, 45, 10, 58, 59, 30], size=8, same_length=False) == [40, 45, 58, 30]


def test_given_a_state_space_model_when_picked_then_lengths_are_equal() -> None:
    assert lengths([40, 41, 40, 39], size=8, same_length=True) == [40, 40]


def test_given_more_than_fit_when_picked_then_the_batch_is_full() -> None:
    assert lengths([5] * 9, size=4, same_length=False) == [5] * 4


def test_given_a_model_whose_paged_attention_is_wrong_when_started_then_it_is_not_used(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def deaf(module: Any, query: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        return query.transpose(1, 2).contiguous() * 7, None

    folder = str(checkpoint("gpt2"))
    sound = TransformersEngine(EngineConfig(folder, "cpu", "float32"))
    sound.start()
    expected = completed(sound, [request("a", "Hello")])["a"].samples
    sound.close()
    monkeypatch.setitem(AttentionInterface._global_mapping, attention.NAME, deaf)
    forced = EngineConfig(folder, "cpu", "float32", options={"batching": "continuous"})
    with pytest.raises(ModelLoadError, match="can't be batched continuously"):
        TransformersEngine(forced).start()
    engine = TransformersEngine(EngineConfig(folder, "cpu", "float32"))
    info = engine.start()
    assert info.kv_tokens is None
    assert completed(engine, [request("a", "Hello")])["a"].samples == expected
    engine.close()
    assert "can't be batched continuously" in caplog.text
