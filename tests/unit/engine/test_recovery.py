"""What the transformers engine does when the model breaks, or memory runs out, under it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
import torch

from tests.support.checkpoints import Checkpoint
from tests.support.collector import completed, outcomes, request
from worker.engine.protocol import Completed, EngineConfig, Failed
from worker.engine.transformers.engine import TransformersEngine

PROMPTS = [f"Hello, I'm a language model number {n}" for n in range(12)]
OUT_OF_MEMORY = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"


def started(folder: str, batching: str, **config: Any) -> TransformersEngine:
    engine = TransformersEngine(
        EngineConfig(folder, "cpu", "float32", options={"batching": batching}, **config)
    )
    engine.start()
    return engine


@pytest.fixture(params=["continuous", "static"])
def engine(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Iterator[TransformersEngine]:
    engine = started(str(checkpoint("gpt2")), request.param, max_concurrency=8)
    yield engine
    engine.close()


def model_of(engine: TransformersEngine) -> Any:
    backend: Any = engine._running.backend
    return backend._loaded.model


def break_forward(engine: TransformersEngine, error_at: Callable[[int], Exception | None]) -> None:
    """Let the model raise what `error_at(number of the call)` gives."""
    calls = count()

    def hook(*_: Any) -> None:
        error = error_at(next(calls))
        if error is not None:
            raise error

    model_of(engine).register_forward_pre_hook(hook)


def requests(**params: Any) -> list[Any]:
    return [request(str(n), prompt, **params) for n, prompt in enumerate(PROMPTS)]


def texts(answers: dict[str, Completed]) -> dict[str, str]:
    return {name: one.samples[0].text for name, one in answers.items()}


@pytest.mark.parametrize(
    "error",
    [RuntimeError(OUT_OF_MEMORY), MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")],
    ids=["allocator", "python", "device"],
)
def test_given_memory_runs_out_when_running_then_it_shrinks_once_and_loses_nothing(
    engine: TransformersEngine, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    expected = texts(completed(engine, requests()))
    capacity = engine.stats().capacity
    break_forward(engine, lambda call: error if call == 3 else None)
    with caplog.at_level(logging.WARNING):
        assert texts(completed(engine, requests())) == expected
    assert engine.stats().capacity == capacity // 2
    warnings = [one for one in caplog.records if getattr(one, "action", "") == "engine_shrink"]
    assert len(warnings) == 1
    assert not any(prompt in caplog.text for prompt in PROMPTS)


def test_given_no_memory_even_for_one_when_running_then_requests_fail_retriable(
    engine: TransformersEngine,
) -> None:
    short = True
    break_forward(engine, lambda _: RuntimeError(OUT_OF_MEMORY) if short else None)
    for one in outcomes(engine, requests()[:3]).values():
        assert isinstance(one, Failed)
        assert (one.code, one.retriable) == ("out_of_memory", True)
    short = False
    assert completed(engine, requests()[3:5])


def test_given_the_model_breaks_when_running_then_requests_fail_retriable_and_it_goes_on(
    engine: TransformersEngine,
) -> None:
    expected = texts(completed(engine, requests()))
    broken = True
    break_forward(engine, lambda _: ValueError("strange shape") if broken else None)
    failed = outcomes(engine, [request("a", PROMPTS[0])])["a"]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retriable) == ("engine_error", True)
    assert "strange shape" in failed.message
    broken = False
    assert texts(completed(engine, requests())) == expected


def break_for(engine: TransformersEngine, token_id: int) -> list[int]:
    """Let the model raise whenever it reads that token; how many passes it has begun."""
    passes = [0]

    def hook(_: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        passes[0] += 1
        ids = keywords.get("input_ids", arguments[0] if arguments else None)
        if ids is not None and bool((ids == token_id).any()):
            raise ValueError(f"token {token_id} is poison")

    model_of(engine).register_forward_pre_hook(hook, with_kwargs=True)
    return passes


@pytest.mark.parametrize("where", ["prefill", "decode"])
@pytest.mark.parametrize("culprits", [1, 2])
def test_culprit_of_a_step_fails_alone(
    engine: TransformersEngine, where: str, culprits: int, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"Sack {'abcdefghijklmnop'[n]} of flour" for n in range(16)]
    wanted = {str(n): request(str(n), prompt, logprobs=1) for n, prompt in enumerate(names)}
    answers = completed(engine, wanted.values())
    expected = {name: one.samples[0] for name, one in answers.items()}
    if where == "decode":
        # A token that one of them alone generates, in the middle of its text.
        poison = unique_token(expected, culprits)
    else:
        tokenizer = engine._running.prompter._tokenizer
        poison = tokenizer("~")["input_ids"][0]
        for name in list(wanted)[5::7][:culprits]:
            wanted[name] = request(name, f"Sack ~ {name}", logprobs=1)
    passes = break_for(engine, poison)
    with caplog.at_level(logging.ERROR):
        after = outcomes(engine, wanted.values())
    failed = {name for name, one in after.items() if isinstance(one, Failed)}
    assert len(failed) == culprits
    for name in failed:
        one = after[name]
        assert isinstance(one, Failed)
        assert (one.code, one.retriable) == ("engine_error", True)
        assert f"token {poison} is poison" in one.message
    for name, one in after.items():
        if name not in failed:
            assert isinstance(one, Completed)
            assert one.samples[0].text == expected[name].text
            assert len(one.samples[0].logprobs or ()) == one.samples[0].completion_tokens
    assert passes[0] < 200
    assert completed(engine, [wanted[name] for name in wanted if name not in failed])
    assert not caplog.records  # nothing had to be rebuilt


def unique_token(samples: dict[str, Any], texts: int) -> int:
    """A token within so many of the texts, none of their first and last ones."""
    within: dict[int, set[str]] = {}
    anywhere: dict[int, set[str]] = {}
    for name, sample in samples.items():
        for at, one in enumerate(sample.logprobs):
            anywhere.setdefault(one.token_id, set()).add(name)
            if 1 <= at < len(sample.logprobs) - 1:
                within.setdefault(one.token_id, set()).add(name)
    return next(
        token for token, names in within.items() if len(names) == texts and anywhere[token] == names
    )


def test_given_logits_that_are_nan_when_running_then_the_request_fails_for_good(
    engine: TransformersEngine,
) -> None:
    weight = model_of(engine).transformer.ln_f.weight
    with torch.no_grad():
        weight.fill_(float("nan"))
    failed = outcomes(engine, [request("a", PROMPTS[0])])["a"]
    with torch.no_grad():
        weight.fill_(1.0)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retriable) == ("not_finite", False)
    assert completed(engine, [request("b", PROMPTS[0])])


@pytest.mark.parametrize("kind", ["gpt2", "gemma3"])
def test_given_a_kv_cache_too_small_for_all_when_running_then_the_text_is_the_same(
    checkpoint: Checkpoint, kind: Any
) -> None:
    params = {"max_tokens": 40, "ignore_eos": True, "temperature": 0.8, "seed": 9}
    roomy = started(str(checkpoint(kind)), "continuous")
    expected = texts(completed(roomy, requests(**params)))
    roomy.close()
    backend: Any = None
    tight = TransformersEngine(EngineConfig(str(checkpoint(kind)), "cpu", "float32"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.engine.transformers.memory.limits", lambda *_: tight_limits(pages=20))
        info = tight.start()
    backend = tight._running.backend
    assert backend.kv_tokens == info.kv_tokens
    assert (info.kv_tokens or 0) < 12 * 40  # not all fit at once: some must begin again
    assert texts(completed(tight, requests(**params))) == expected
    tight.close()


def tight_limits(pages: int) -> Any:
    from worker.engine.transformers.memory import Limits

    return Limits(requests=32, batch_tokens=128, pages=pages, page_size=16, memory_fraction=0.2)


def test_given_a_prompt_larger_than_the_kv_cache_when_submitted_then_it_fails_by_name(
    checkpoint: Checkpoint,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.engine.transformers.memory.limits", lambda *_: tight_limits(pages=4))
        engine = started(str(checkpoint("gpt2")), "continuous")
    failed = outcomes(engine, [request("a", "word " * 30)])["a"]
    cut = completed(engine, [request("b", "word", max_tokens=200, ignore_eos=True)])["b"]
    engine.close()
    assert isinstance(failed, Failed)
    assert failed.code == "kv_cache_too_small"
    assert cut.samples[0].finish_reason == "length"
    assert cut.prompt_tokens + cut.samples[0].completion_tokens == 64
