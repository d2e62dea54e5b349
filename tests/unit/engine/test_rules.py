"""What a checkpoint's generation_config asks for is followed as `model.generate` follows it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from db.errors import ModelLoadError
from tests.support.checkpoints import Checkpoint
from tests.support.collector import completed, request
from tests.support.tiny_models import Kind, build_tiny_model
from worker.engine.protocol import EngineConfig, EngineInfo
from worker.engine.shared.generation_rules import warn_not_followed
from worker.engine.transformers.engine import TransformersEngine

PROMPTS = (
    "The quick brown fox jumps over the lazy dog while the miller counts.",
    "What is the capital of France?",
)

#: One rule or a few, for a decoder: what they forbid are tokens that it would choose.
DECODER_RULES: dict[str, dict[str, Any]] = {
    "repeats": {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
    "suppress": {"suppress_tokens": [300, 301], "begin_suppress_tokens": [40, 41]},
    "length": {"min_new_tokens": 6, "exponential_decay_length_penalty": [4, 1.5]},
    "bias": {"sequence_bias": [[[260], 9.0], [[261], -9.0]], "bad_words_ids": [[262], [70, 71]]},
    "forced": {"forced_bos_token_id": 65, "forced_eos_token_id": 0, "remove_invalid_values": True},
}


def started(folder: Path, **options: str) -> tuple[TransformersEngine, EngineInfo]:
    engine = TransformersEngine(EngineConfig(str(folder), "cpu", "float32", options=options))
    return engine, engine.start()


def generated(folder: Path, tokens: int) -> list[list[int]]:
    """What transformers' own `generate` gives, the end token included."""
    seq2seq = transformers.AutoConfig.from_pretrained(folder).is_encoder_decoder
    kind = transformers.AutoModelForSeq2SeqLM if seq2seq else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)[0].tolist()
        texts.append(ids[1 if seq2seq else inputs["input_ids"].shape[1] :])
    return texts


def engine_ids(engine: TransformersEngine, tokens: int, **params: Any) -> list[list[int]]:
    wanted = [
        request(str(at), prompt, max_tokens=tokens, logprobs=True, **params)
        for at, prompt in enumerate(PROMPTS)
    ]
    answers = completed(engine, wanted)
    return [
        [one.token_id for one in answers[str(at)].samples[0].logprobs or ()]
        for at in range(len(PROMPTS))
    ]


def with_rules(folder: Path, kind: Kind, rules: dict[str, Any]) -> Path:
    build_tiny_model(kind, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **rules}))
    return folder


def test_bart_follows_its_rules(checkpoint: Checkpoint) -> None:
    folder = checkpoint("bart")
    engine, info = started(folder)
    ids = engine_ids(engine, 20)
    cut = completed(engine, [request("a", PROMPTS[0], max_tokens=6)])["a"].samples[0]
    free = completed(engine, [request("a", PROMPTS[0], choice=["yes"])])["a"].samples[0]
    engine.close()
    assert ids == generated(folder, 20)
    assert "forced_bos_token_id" in (info.backend or "")
    # The end token is forced, but the text is cut all the same.
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 6)
    assert (free.text, free.finish_reason) == ("yes", "stop")


def test_rules_can_be_left_out(checkpoint: Checkpoint) -> None:
    folder = checkpoint("bart")
    engine, info = started(folder, generation_rules="none")
    ids = engine_ids(engine, 20)
    engine.close()
    assert ids != generated(folder, 20)
    assert "rules" not in (info.backend or "")


@pytest.mark.parametrize("name", DECODER_RULES)
def test_decoder_follows_its_rules(name: str, tmp_path: Path) -> None:
    folder = with_rules(tmp_path / "gpt2", "gpt2", DECODER_RULES[name])
    plain = build_tiny_model("gpt2", tmp_path / "plain")
    engine, info = started(folder)
    ids = engine_ids(engine, 16)
    engine.close()
    assert (info.backend or "").startswith("continuous")
    assert ids == generated(folder, 16)
    if name in ("repeats", "forced"):  # the others may forbid what is not said anyway
        assert ids != generated(plain, 16)


def test_request_has_its_own_repetition_penalty(tmp_path: Path) -> None:
    folder = with_rules(tmp_path / "gpt2", "gpt2", {"repetition_penalty": 1.5})
    plain = build_tiny_model("gpt2", tmp_path / "plain")
    engine, _ = started(folder)
    ids = engine_ids(engine, 16, repetition_penalty=1.0)
    engine.close()
    assert ids == generated(plain, 16)


def test_sampling_parameters_are_no_rules(tmp_path: Path) -> None:
    rules = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20}
    folder = with_rules(tmp_path / "gpt2", "gpt2", rules)
    engine, info = started(folder)
    engine.close()
    assert "rules" not in (info.backend or "")


def test_search_is_said_and_one_text_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = with_rules(tmp_path / "gpt2", "gpt2", {"num_beams": 4, "length_penalty": 2.0})
    with caplog.at_level(logging.WARNING):
        engine, _ = started(folder)
    engine.close()
    assert "num_beams=4" in caplog.text


def test_rule_that_is_not_followed_is_refused_by_name(tmp_path: Path) -> None:
    folder = with_rules(tmp_path / "gpt2", "gpt2", {"guidance_scale": 2.0})
    with pytest.raises(ModelLoadError, match=r"guidance_scale.*generation_rules=none"):
        started(folder)


def test_assistance_is_refused_beside_rules(tmp_path: Path) -> None:
    folder = with_rules(tmp_path / "gpt2", "gpt2", {"no_repeat_ngram_size": 2})
    with pytest.raises(ModelLoadError, match="no_repeat_ngram_size"):
        started(folder, prompt_lookup="4")


def test_engine_that_follows_no_rules_logs_them(caplog: pytest.LogCaptureFixture) -> None:
    rules = transformers.GenerationConfig(forced_bos_token_id=0, num_beams=4, top_p=0.9)
    with caplog.at_level(logging.WARNING):
        warn_not_followed("keras", transformers.GenerationConfig(temperature=0.6, num_beams=1))
        warn_not_followed("keras", None)
        assert not caplog.records
        warn_not_followed("keras", rules)
    assert "forced_bos_token_id, num_beams, which engine 'keras'" in caplog.text
