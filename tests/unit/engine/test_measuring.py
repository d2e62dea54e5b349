"""Scores and embeddings of the transformers engine: what the plain model says of each text."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from db.modes import EmbedParams, ScoreParams
from tests.support.checkpoints import Checkpoint
from tests.support.collector import Collector, completed, request
from tests.support.gpu import skip_without
from tests.support.measured import Reference, embedding_of, measured, score_of
from tests.support.tiny_models import CONTEXT_LENGTH
from worker.engine.protocol import (
    Completed,
    Embedded,
    EngineConfig,
    Failed,
    Scored,
    ScoreRequest,
)
from worker.engine.transformers.engine import TransformersEngine
from worker.engine.transformers.loading import load
from worker.engine.transformers.measuring.body import Body
from worker.engine.transformers.measuring.measurement import Measuring, pick
from worker.engine.transformers.measuring.measurer import Measurer

#: Of every length, so that a batch is padded.
TEXTS = [
    "Hello, I'm a language model" + ", and I run a mill" * (number % 5) + "." * number
    for number in range(12)
]
COMPLETIONS = [" that grinds", " all day long, every day of the year", " x", " Das Haus ist gross"]

KINDS = [
    *("gpt2-continuous", "gemma3-continuous", "gpt2-static", "gemma3-static", "mamba", "t5"),
    *("gpt2-continuous-cuda", "gemma3-continuous-cuda", "gemma3-static-cuda", "t5--cuda"),
]


def started(folder: Path, batching: str = "auto", device: str = "cpu") -> TransformersEngine:
    engine = TransformersEngine(
        EngineConfig(str(folder), device, "float32", options={"batching": batching})
    )
    engine.start()
    return engine


@pytest.fixture(scope="module", params=KINDS)
def pair(
    request: pytest.FixtureRequest, checkpoint: Checkpoint
) -> Iterator[tuple[TransformersEngine, Reference]]:
    words: list[Any] = [*request.param.split("-"), "", ""]
    kind, batching, device = words[:3]
    skip_without(device)
    folder = checkpoint(kind)
    engine = started(folder, batching or "auto", device or "cpu")
    yield engine, Reference(folder)
    engine.close()


def test_given_prompts_and_completions_when_scored_then_it_is_the_plain_models_log_softmax(
    pair: tuple[TransformersEngine, Reference],
) -> None:
    engine, reference = pair
    cases = {
        f"{at}-{place}": (text, completion)
        for at, text in enumerate(TEXTS)
        for place, completion in enumerate(COMPLETIONS)
    }
    wanted = [score_of(name, *case, logprobs=3) for name, case in cases.items()]
    answers = measured(engine, wanted)
    for name, case in cases.items():
        answer, expected = answers[name], reference.logprobs(*case)
        assert isinstance(answer, Scored)
        assert answer.tokens == len(expected)
        assert answer.logprob == pytest.approx(math.fsum(expected), abs=2e-3)
        assert answer.logprobs is not None
        assert [one.logprob for one in answer.logprobs] == pytest.approx(expected, abs=5e-4)
        assert all(len(one.top) == 3 for one in answer.logprobs)
        assert all(one.top[0][2] >= one.logprob - 1e-6 for one in answer.logprobs)
        given = reference.tokenizer(case[0])["input_ids"]
        assert answer.prompt_tokens == len(given)


def test_given_texts_when_scored_then_every_token_but_the_first_counts(
    pair: tuple[TransformersEngine, Reference],
) -> None:
    engine, reference = pair
    answers = measured(engine, [score_of(str(at), text) for at, text in enumerate(TEXTS)])
    for at, text in enumerate(TEXTS):
        answer = answers[str(at)]
        if reference.encoder_decoder:
            assert isinstance(answer, Failed)
            assert answer.code == "completion_missing"
            continue
        expected = reference.logprobs(text)
        assert isinstance(answer, Scored)
        assert (answer.tokens, answer.prompt_tokens) == (len(expected), 1)
        assert answer.logprob == pytest.approx(math.fsum(expected), abs=2e-3)
        assert answer.logprobs is None


@pytest.mark.parametrize("pooling", ["mean", "last", "first"])
def test_given_texts_when_embedded_then_it_is_the_plain_models_last_hidden_states(
    pair: tuple[TransformersEngine, Reference], pooling: Any
) -> None:
    engine, reference = pair
    answers = measured(
        engine, [embedding_of(str(at), text, pooling=pooling) for at, text in enumerate(TEXTS)]
    )
    for at, text in enumerate(TEXTS):
        states, answer = reference.states(text), answers[str(at)]
        assert isinstance(answer, Embedded)
        assert answer.prompt_tokens == len(states)
        expected = {"mean": states.mean(dim=0), "last": states[-1], "first": states[0]}[pooling]
        found = torch.tensor(answer.vector, dtype=torch.float64)
        scale = float(states.abs().max())
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)


def test_given_one_text_when_embedded_alone_and_among_longer_ones_then_nothing_leaks(
    pair: tuple[TransformersEngine, Reference],
) -> None:
    engine, _ = pair
    alone = measured(engine, [embedding_of("a", TEXTS[0]), score_of("b", TEXTS[0], " x")])
    crowd = [embedding_of(str(at), text) for at, text in enumerate(TEXTS[1:])]
    scores = [score_of(f"s{at}", text, " more") for at, text in enumerate(TEXTS[1:])]
    together = measured(
        engine, [embedding_of("a", TEXTS[0]), *crowd, score_of("b", TEXTS[0], " x"), *scores]
    )
    one, other = alone["a"], together["a"]
    assert isinstance(one, Embedded)
    assert isinstance(other, Embedded)
    assert list(other.vector) == pytest.approx(list(one.vector), rel=1e-3, abs=1e-4)
    score, again = alone["b"], together["b"]
    assert isinstance(score, Scored)
    assert isinstance(again, Scored)
    assert again.logprob == pytest.approx(score.logprob, abs=1e-3)


def test_given_normalize_and_float16_when_embedded_then_the_length_is_one(
    pair: tuple[TransformersEngine, Reference],
) -> None:
    engine, _ = pair
    asked = embedding_of("a", TEXTS[3], normalize=True, precision="float16")
    answer = measured(engine, [asked])["a"]
    assert isinstance(answer, Embedded)
    assert math.hypot(*answer.vector) == pytest.approx(1, abs=1e-3)
    halves = torch.tensor(answer.vector, dtype=torch.float16)
    assert halves.float().tolist() == list(answer.vector)


def test_given_generation_in_flight_when_measured_then_both_are_as_if_alone(
    pair: tuple[TransformersEngine, Reference],
) -> None:
    engine, _ = pair
    prompts = [request(f"g{at}", text, max_tokens=24) for at, text in enumerate(TEXTS)]
    wanted = [score_of(f"s{at}", text, COMPLETIONS[1]) for at, text in enumerate(TEXTS)]
    wanted_vectors = [embedding_of(f"e{at}", text) for at, text in enumerate(TEXTS)]
    texts = completed(engine, prompts)
    scores = measured(engine, [*wanted, *wanted_vectors])
    collector = Collector()
    for prompt, score, vector in zip(prompts, wanted, wanted_vectors, strict=True):
        engine.submit(prompt, collector.on_done)
        engine.measure(score, collector.on_done)
        engine.measure(vector, collector.on_done)
    answers = collector.wait(3 * len(TEXTS))
    for prompt in prompts:
        answer = answers[prompt.id]
        assert isinstance(answer, Completed)
        assert answer.samples[0].text == texts[prompt.id].samples[0].text
    for score in wanted:
        found, alone = answers[score.id], scores[score.id]
        assert isinstance(found, Scored)
        assert isinstance(alone, Scored)
        assert found.logprob == pytest.approx(alone.logprob, abs=2e-3)
    assert all(isinstance(answers[one.id], Embedded) for one in wanted_vectors)
    assert engine.stats().in_flight == 0


def test_given_bad_texts_when_measured_then_each_fails_alone_with_its_code(
    pair: tuple[TransformersEngine, Reference],
) -> None:
    engine, reference = pair
    bad: dict[str, tuple[Any, str]] = {}
    if reference.model.config.model_type in ("gpt2", "gemma3_text"):
        long = "word " * (CONTEXT_LENGTH + 1)
        bad["long text"] = (score_of("long text", long), "prompt_too_long")
        bad["long"] = (score_of("long", "Hi", " " + long), "prompt_too_long")
        bad["long vector"] = (embedding_of("long vector", long), "prompt_too_long")
    if not reference.encoder_decoder and len(reference.tokenizer("a")["input_ids"]) == 1:
        bad["short"] = (score_of("short", "a"), "nothing_to_score")
    chat = ScoreRequest(
        "chat", ScoreParams(), messages=[{"role": "tool", "content": "?"}], completion="x"
    )
    templated = bool(reference.tokenizer.chat_template)
    bad["chat"] = (chat, "bad_chat" if templated else "no_chat_template")
    answers = measured(
        engine, [score_of("good", "Hello", " world"), *(one for one, _ in bad.values())]
    )
    assert isinstance(answers["good"], Scored)
    for name, (_, code) in bad.items():
        failed = answers[name]
        assert isinstance(failed, Failed)
        assert (failed.code, failed.retriable) == (code, False)


def test_given_a_chat_when_scored_then_the_completion_follows_the_rendered_prompt(
    checkpoint: Checkpoint,
) -> None:
    engine = started(checkpoint("gemma3"))
    messages = [{"role": "user", "content": "Hello"}]
    chat = ScoreRequest("a", ScoreParams(), messages=messages, completion="Good day")
    answer = measured(engine, [chat])["a"]
    engine.close()
    reference = Reference(checkpoint("gemma3"))
    rendered = reference.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    expected = reference.logprobs(rendered.removeprefix("<bos>"), "Good day")
    assert isinstance(answer, Scored)
    assert answer.logprob == pytest.approx(math.fsum(expected), abs=2e-3)


OUT_OF_MEMORY = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"


def measurer_of(engine: TransformersEngine) -> Measurer:
    measurer = engine._running.measurer
    assert isinstance(measurer, Measurer)
    return measurer


def break_body(engine: TransformersEngine, breaks: Any) -> None:
    """Let the model's body raise what `breaks(number of the call, input ids)` gives."""
    calls = count()

    def hook(_: Any, arguments: Any, named: Any) -> None:
        # The head's own calls skip the body, and give no ids by name.
        ids = named.get("input_ids")
        error = None if ids is None else breaks(next(calls), ids)
        if error is not None:
            raise error

    body: Any = measurer_of(engine)._body._inner
    body.register_forward_pre_hook(hook, with_kwargs=True)


@pytest.mark.parametrize("batching", ["continuous", "static"])
def test_given_memory_runs_out_when_measuring_then_a_pass_takes_half_and_nothing_is_lost(
    checkpoint: Checkpoint, batching: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = started(checkpoint("gpt2"), batching)
    wanted = [score_of(str(at), text, " x") for at, text in enumerate(TEXTS)]
    expected = measured(engine, wanted)
    tokens = measurer_of(engine).batch_tokens

    def breaks(_: int, ids: torch.Tensor) -> Exception | None:
        return RuntimeError(OUT_OF_MEMORY) if ids.shape[0] > 4 else None

    break_body(engine, breaks)
    with caplog.at_level(logging.WARNING):
        answers = measured(engine, wanted)
    assert measurer_of(engine).batch_tokens <= tokens // 2
    assert any(getattr(one, "action", "") == "engine_shrink" for one in caplog.records)
    for name, one in expected.items():
        found = answers[name]
        assert isinstance(one, Scored)
        assert isinstance(found, Scored)
        assert found.logprob == pytest.approx(one.logprob, abs=1e-3)
    engine.close()


def test_given_one_text_that_never_fits_when_measured_then_it_alone_fails_and_may_come_again(
    checkpoint: Checkpoint,
) -> None:
    engine = started(checkpoint("gpt2"))
    longest = max(len(Reference(checkpoint("gpt2")).tokenizer(text)["input_ids"]) for text in TEXTS)

    def breaks(_: int, ids: torch.Tensor) -> Exception | None:
        return MemoryError() if ids.shape[1] > longest else None

    break_body(engine, breaks)
    texts = [*TEXTS, TEXTS[-1] * 2]
    answers = measured(engine, [embedding_of(str(at), text) for at, text in enumerate(texts)])
    failed = answers.pop(str(len(TEXTS)))
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retriable) == ("out_of_memory", True)
    assert all(isinstance(one, Embedded) for one in answers.values())
    engine.close()


def test_given_the_model_breaks_on_one_text_when_measured_then_it_alone_fails(
    checkpoint: Checkpoint,
) -> None:
    engine = started(checkpoint("gpt2"))
    culprit = Reference(checkpoint("gpt2")).tokenizer(TEXTS[4])["input_ids"]

    def breaks(_: int, ids: torch.Tensor) -> Exception | None:
        rows = [row[: len(culprit)] for row in ids.tolist()]
        same = [row for row in rows if row == culprit]
        # A longer text may begin with it: the culprit's row is padded right after it.
        alone = any(set(row[len(culprit) :]) <= {0} for row in ids.tolist() if same)
        return ValueError("broken") if same and alone else None

    break_body(engine, breaks)
    answers = measured(engine, [embedding_of(str(at), text) for at, text in enumerate(TEXTS)])
    failed = answers.pop("4")
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retriable) == ("engine_error", True)
    assert "ValueError: broken" in failed.message
    assert all(isinstance(one, Embedded) for one in answers.values())
    engine.close()


def test_given_a_long_completion_when_scored_then_its_logits_are_made_in_pieces(
    checkpoint: Checkpoint,
) -> None:
    loaded = load(EngineConfig(str(checkpoint("gpt2")), "cpu", "float32"))
    body, ids = Body(loaded), list(range(40))
    body.piece = 16
    with body.ready():
        states = body.states_before([ids[:1], ids[:3]], [ids[1:], ids[3:]])
        pieces = [part.clone() for part in body.logits(states)]
        plain = loaded.model(torch.tensor([ids])).logits[0]
    assert [part.shape[0] for part in pieces] == [16, 16, 16, 16, 12]
    expected = torch.cat([plain[:-1], plain[2:-1]])
    assert torch.allclose(torch.cat(pieces), expected, rtol=1e-4, atol=1e-4)
    assert "forward" not in loaded.model.transformer.__dict__


def waiting(tokens: int, kind: str = "embed") -> Measuring:
    made: Any = embedding_of("a", "x") if kind == "embed" else score_of("a", "x", "y")
    return Measuring(made, lambda *_: None, range(tokens), ())


def test_given_texts_that_wait_when_picked_then_they_are_near_of_one_kind_and_fit() -> None:
    pending = [
        waiting(40),
        waiting(41),
        waiting(41, "score"),
        waiting(90),
        waiting(45),
        waiting(58),
    ]
    assert [one.tokens for one in pick(pending, 10_000)] == [40, 41, 45, 58]
    assert [one.tokens for one in pick(pending, 140)] == [40, 41, 45]
    assert [one.tokens for one in pick(pending, 85)] == [40, 41]
    assert [one.tokens for one in pick(pending, 10)] == [40]


def test_given_parameters_when_made_then_defaults_are_as_documented() -> None:
    assert EmbedParams().model_dump() == {
        "pooling": "mean", "normalize": False, "precision": "float32", "adapter": None,
        "add_special_tokens": None,
    }  # fmt: skip
    assert ScoreParams().model_dump() == {
        "logprobs": False, "adapter": None, "add_special_tokens": None,
    }  # fmt: skip
