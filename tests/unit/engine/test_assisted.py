"""Assisted decoding beside its texts: options, refusals, memory, cancelling, closing, numbers."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
import transformers

from db.errors import ModelLoadError, SettingsError
from db.sampling import SamplingParams
from db.schema import workers
from tests.support.checkpoints import Checkpoint
from tests.support.collector import Collector, completed, outcomes, request
from tests.support.measured import embedding_of, measured, score_of
from worker.engine.protocol import Cancelled, Completed, Embedded, EngineConfig, Failed, Scored
from worker.engine.shared.backend import Progress
from worker.engine.shared.continuation import Continuation
from worker.engine.shared.rows import Row
from worker.engine.transformers.assisted import cached, drafting
from worker.engine.transformers.assisted.options import OPTIONS
from worker.engine.transformers.engine import TransformersEngine

PROMPT = "One, two, three, one, two, three, one, two,"
OUT_OF_MEMORY = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"


def engine_of(model: Path, **options: str) -> TransformersEngine:
    return TransformersEngine(EngineConfig(str(model), "cpu", "float32", options=options))


@pytest.fixture(params=["lookup", "model"])
def engine(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Iterator[TransformersEngine]:
    folder = checkpoint("gpt2")
    lookup = request.param == "lookup"
    option = {"prompt_lookup": "4"} if lookup else {"assistant": str(folder)}
    engine = engine_of(folder, **option)
    engine.start()
    yield engine
    engine.close()


def backend_of(engine: TransformersEngine) -> Any:
    return engine._running.backend


def model_of(engine: TransformersEngine) -> Any:
    return backend_of(engine)._loaded.model


def texts(answers: dict[str, Completed]) -> dict[str, list[str]]:
    return {name: [sample.text for sample in one.samples] for name, one in answers.items()}


# --- options and refusals -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"assistant": "m", "prompt_lookup": "3"}, "exclude each other"),
        ({"prompt_lookup": "0"}, "'0' is not a whole number from 1 to 100"),
        ({"prompt_lookup": "101"}, "'101' is not a whole number"),
        ({"prompt_lookup": "two"}, "'two' is not a whole number"),
        ({"prompt_lookup": "2.5"}, "'2.5' is not a whole number"),
        ({"prompt_lookup": "9" * 5000}, "is not a whole number"),
        ({"prompt_lookup": ""}, "'' is not a whole number"),
        ({"assistant": "m", "draft_tokens": "-1"}, "'-1' is not a whole number"),
        ({"assistant": " "}, "names no model"),
        ({"draft_tokens": "3"}, "'draft_tokens' needs 'assistant'"),
        ({"prompt_lookup": "3", "draft_tokens": "3"}, "'draft_tokens' needs 'assistant'"),
        ({"prompt_lookup": "3", "batching": "continuous"}, "exclude each other"),
        ({"assistant": "m", "batching": "static"}, "exclude each other"),
    ],
)
def test_given_options_that_make_no_sense_when_created_then_one_line_says_why(
    options: dict[str, str], reason: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        engine_of(Path("m"), **options)
    assert reason in caught.value.message
    assert "\n" not in caught.value.message
    assert any(f"'{name}'" in caught.value.message for name in OPTIONS)


def refusal(model: Path, **options: str) -> str:
    with pytest.raises(ModelLoadError) as caught:
        engine_of(model, **options).start()
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("kind", "what"), [("t5", "an encoder-decoder"), ("mamba", "a state-space model")]
)
def test_given_a_model_that_can_not_be_assisted_when_started_then_it_is_named(
    checkpoint: Checkpoint, kind: Any, what: str
) -> None:
    message = refusal(checkpoint(kind), prompt_lookup="4")
    assert f"model '{checkpoint(kind)}' can't be assisted, as it is {what}" in message
    assert "'prompt_lookup'" in message


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("t5", "it is an encoder-decoder"),
        ("mamba", "it is a state-space model"),
        ("gemma3", "their vocabularies differ (token 0 is '<|endoftext|>' and '<pad>')"),
    ],
)
def test_given_an_assistant_of_another_sort_when_started_then_it_is_named(
    checkpoint: Checkpoint, kind: Any, what: str
) -> None:
    message = refusal(checkpoint("gpt2"), assistant=str(checkpoint(kind)))
    assert f"assistant '{checkpoint(kind)}' can't draft for model" in message
    assert what in message


def test_given_an_assistant_that_is_not_there_when_started_then_it_is_named(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    message = refusal(checkpoint("gpt2"), assistant=str(tmp_path / "no"))
    assert message == (
        f"engine option 'assistant': model folder '{tmp_path / 'no'}' does not exist"
    )


def test_given_a_model_that_takes_no_token_back_when_started_then_it_is_not_assisted(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.DynamicCache, "crop", lambda *_: None)
    assert "does not take tokens back" in refusal(checkpoint("gpt2"), prompt_lookup="4")


def test_given_an_assistant_with_more_added_tokens_when_started_then_it_drafts(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint("gpt2"), tmp_path / "small")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    engine = engine_of(checkpoint("gpt2"), assistant=str(folder))
    assert engine.start().backend == "assisted, draft model small"
    engine.close()


def test_given_an_assistant_with_a_long_name_when_started_then_the_database_can_keep_it(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / ("small" * 30)
    folder.symlink_to(tmp_path / ("tiny" * 30))
    shutil.copytree(checkpoint("gpt2"), tmp_path / ("tiny" * 30))
    engine = engine_of(checkpoint("gpt2"), assistant=str(folder), draft_tokens="100")
    name = engine.start().backend or ""
    engine.close()
    assert name.startswith("assisted, draft model tinytiny")
    column: Any = workers.c.backend.type
    assert len(name) <= column.length


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"prompt_lookup": "10"}, "assisted, prompt lookup 10"),
        ({"draft_tokens": "3"}, "assisted, draft model gpt2, 3 tokens"),
        ({}, "assisted, draft model gpt2"),
    ],
)
def test_given_a_way_when_started_then_the_back_end_tells_it(
    checkpoint: Checkpoint, options: dict[str, str], name: str
) -> None:
    folder = checkpoint("gpt2")
    who = {} if "prompt_lookup" in options else {"assistant": str(folder)}
    engine = engine_of(folder, **who, **options)
    info = engine.start()
    assert (info.backend, info.capacity, info.kv_tokens) == (name, 1, None)
    parameters = model_of(engine).num_parameters()
    assert info.parameters == parameters  # the assistant's are not the model's
    engine.close()


# --- when things go wrong -------------------------------------------------------------------


def test_given_memory_runs_out_when_running_then_prompts_are_read_in_smaller_pieces(
    engine: TransformersEngine, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = [request(str(n), PROMPT, max_tokens=10, n=2, temperature=1, seed=n) for n in range(3)]
    expected = texts(completed(engine, wanted))
    piece = backend_of(engine)._piece
    errors = iter([None, RuntimeError(OUT_OF_MEMORY)])

    def fail_once(*_: Any) -> None:
        error = next(errors, None)
        if error is not None:
            raise error

    model_of(engine).register_forward_pre_hook(fail_once)
    with caplog.at_level(logging.WARNING):
        assert texts(completed(engine, wanted)) == expected
    assert backend_of(engine)._piece == piece // 2
    assert [one.levelname for one in caplog.records if getattr(one, "action", "")] == ["WARNING"]
    assert engine.stats().capacity == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(RuntimeError(OUT_OF_MEMORY), "out_of_memory"), (ValueError("odd shape"), "engine_error")],
)
def test_given_a_model_that_always_fails_when_running_then_requests_fail_and_it_goes_on(
    engine: TransformersEngine, error: Exception, code: str
) -> None:
    expected = texts(completed(engine, [request("a", PROMPT)]))

    def fail(*_: Any) -> None:
        raise error

    hook = model_of(engine).register_forward_pre_hook(fail)
    failed = outcomes(engine, [request("a", PROMPT, n=2), request("b", PROMPT)])
    hook.remove()
    for one in failed.values():
        assert isinstance(one, Failed)
        assert (one.code, one.retriable) == (code, True)
    assert texts(completed(engine, [request("a", PROMPT)])) == expected


def test_given_logits_that_are_nan_when_running_then_the_request_fails_for_good(
    engine: TransformersEngine,
) -> None:
    weight = model_of(engine).transformer.ln_f.weight
    with torch.no_grad():
        weight.fill_(float("nan"))
    failed = outcomes(engine, [request("a", PROMPT)])["a"]
    with torch.no_grad():
        weight.fill_(1.0)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retriable) == ("not_finite", False)
    assert completed(engine, [request("b", PROMPT)])


@pytest.mark.parametrize("value", [float("nan"), 0.0], ids=["nan", "unsure"])
def test_given_an_assistant_of_no_use_when_running_then_the_text_is_the_same(
    checkpoint: Checkpoint, value: float
) -> None:
    engine = engine_of(checkpoint("gpt2"), assistant=str(checkpoint("gpt2")))
    engine.start()
    expected = texts(completed(engine, [request("a", PROMPT, max_tokens=12)]))
    small = backend_of(engine)._drafter.model._model
    with torch.no_grad():
        small.transformer.ln_f.weight.fill_(value)
        small.transformer.ln_f.bias.fill_(value)
    drafted = backend_of(engine).tally.drafted
    assert texts(completed(engine, [request("a", PROMPT, max_tokens=12)])) == expected
    assert backend_of(engine).tally.drafted == drafted
    engine.close()


def test_given_texts_that_the_assistant_can_not_read_when_running_then_it_leaves_them_alone(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """A shorter context, and token ids that it does not have."""
    folder = shutil.copytree(checkpoint("gpt2"), tmp_path / "small")
    small = transformers.AutoModelForCausalLM.from_pretrained(folder)
    small.config.n_positions = 24
    places = small.transformer.wpe.weight[:24].detach()
    small.transformer.wpe = torch.nn.Embedding(24, places.shape[1], _weight=places)
    small.resize_token_embeddings(485)
    small.save_pretrained(folder)
    wanted = [
        request("grows", "two, three", max_tokens=40, ignore_eos=True, repetition_penalty=1.2),
        request("long", "two, three," * 9, max_tokens=8),
        request("strange", "One", max_tokens=12),  # its token is number 489
        request("sampled", "the", max_tokens=30, temperature=2, seed=2, n=2),
    ]
    plain = engine_of(checkpoint("gpt2"))
    plain.start()
    expected = texts(completed(plain, wanted))
    plain.close()
    engine = engine_of(checkpoint("gpt2"), assistant=str(folder), draft_tokens="6")
    engine.start()
    assert texts(completed(engine, wanted)) == expected
    assert backend_of(engine).tally.drafted > 0
    engine.close()


# --- cancel, close, progress ----------------------------------------------------------------


def test_given_a_request_under_way_when_cancelled_then_it_ends_and_the_next_begins(
    engine: TransformersEngine,
) -> None:
    under_way, may_go_on = Event(), Event()

    def wait(*_: Any) -> None:
        under_way.set()
        may_go_on.wait(60)

    hook = model_of(engine).register_forward_pre_hook(wait)
    collector = Collector()
    engine.submit(request("long", PROMPT, max_tokens=200, ignore_eos=True, n=3), collector.on_done)
    engine.submit(request("next", PROMPT, max_tokens=3), collector.on_done)
    assert under_way.wait(60)
    engine.cancel("long")
    assert isinstance(collector.wait(1)["long"], Cancelled)
    hook.remove()
    may_go_on.set()
    assert isinstance(collector.wait(2)["next"], Completed)
    assert backend_of(engine).tally.tokens < 20


def test_given_a_request_under_way_when_closed_then_the_thread_ends_and_the_model_is_as_before(
    checkpoint: Checkpoint,
) -> None:
    engine = engine_of(checkpoint("gemma3"), assistant=str(checkpoint("gemma3")))
    engine.start()
    backend, model = backend_of(engine), model_of(engine)
    under_way = Event()
    model.register_forward_pre_hook(lambda *_: under_way.set())
    collector = Collector()
    for n in range(3):
        engine.submit(request(str(n), PROMPT, max_tokens=200, ignore_eos=True), collector.on_done)
    assert under_way.wait(60)
    engine.close()
    engine.close()
    assert all(isinstance(one, Cancelled) for one in collector.wait(3).values())
    assert not backend._thread.is_alive()
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_given_a_long_prompt_when_read_in_pieces_then_every_piece_is_progress(
    engine: TransformersEngine,
) -> None:
    backend = backend_of(engine)
    backend._piece = 8
    steps: list[int] = []

    class Watched(Progress):
        def step(self, tokens: int) -> None:
            steps.append(tokens)
            super().step(tokens)

    backend.progress = Watched()
    answer = completed(engine, [request("a", PROMPT * 3, max_tokens=4, ignore_eos=True)])["a"]
    assert sum(steps) == 4
    assert steps.count(0) >= answer.prompt_tokens // 8 - 1


def test_given_several_samples_when_running_then_their_prompt_is_read_once(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    reading = cached.CachedModel.read

    def counted(self: Any, token_ids: Any, keep: int) -> Any:
        if self is backend_of(engine)._model:
            read.append(len(token_ids) - (keep - 1))
        return reading(self, token_ids, keep)

    monkeypatch.setattr(cached.CachedModel, "read", counted)
    params: dict[str, Any] = {"max_tokens": 2, "temperature": 1, "ignore_eos": True}
    answer = completed(engine, [request("a", PROMPT * 2, n=4, **params)])["a"]
    assert sum(read) <= answer.prompt_tokens + 4 * 2
    assert backend_of(engine)._prompt is None


def test_given_measuring_beside_it_when_both_run_then_both_are_right(
    engine: TransformersEngine,
) -> None:
    alone = measured(engine, [score_of("s", PROMPT, " three"), embedding_of("e", PROMPT)])
    expected = texts(completed(engine, [request("a", PROMPT, max_tokens=20)]))
    collector = Collector()
    engine.submit(request("a", PROMPT, max_tokens=20), collector.on_done)
    beside = measured(engine, [score_of("s", PROMPT, " three"), embedding_of("e", PROMPT)])
    generated = collector.wait(1)["a"]
    assert isinstance(generated, Completed)
    assert texts({"a": generated}) == expected
    score, again = alone["s"], beside["s"]
    assert isinstance(score, Scored)
    assert isinstance(again, Scored)
    assert again.logprob == pytest.approx(score.logprob, abs=1e-4)
    assert isinstance(beside["e"], Embedded)


def test_given_texts_when_closed_then_the_log_says_how_well_the_drafts_did(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(checkpoint("gpt2"), prompt_lookup="4")
    engine.start()
    completed(engine, [request("a", PROMPT, max_tokens=10, ignore_eos=True)])
    tally = backend_of(engine).tally
    with caplog.at_level(logging.INFO):
        engine.close()
    told = [one.getMessage() for one in caplog.records if getattr(one, "action", "") == "assisted"]
    assert len(told) == 1
    assert told[0].startswith(f"assisted, prompt lookup 4: 10 tokens in {tally.steps} steps, ")
    assert PROMPT not in caplog.text


def test_given_drafts_when_right_or_wrong_then_the_next_is_longer_or_shorter(
    checkpoint: Checkpoint,
) -> None:
    engine = engine_of(checkpoint("gpt2"), assistant=str(checkpoint("gpt2")))
    engine.start()
    drafter = backend_of(engine)._drafter
    assert drafter._length == drafting.FIRST
    drafter.close(drafted=5, taken=5)
    assert drafter._length == 7
    drafter.close(drafted=7, taken=6)
    assert drafter._length == 6
    drafter.close(drafted=0, taken=0)
    assert drafter._length == 6
    for _ in range(30):
        drafter.close(drafted=3, taken=3)
    assert drafter._length == drafting.LONGEST
    for _ in range(30):
        drafter.close(drafted=3, taken=0)
    assert drafter._length == 1
    engine.close()


def test_given_a_lookup_that_was_wrong_when_done_then_the_next_is_shorter_for_this_text() -> None:
    drafter = drafting.LookupDrafter(10)
    text = list(range(20)) * 2
    one = Continuation(
        "a", "a", SamplingParams(), 0, 0, prompt_ids=text, limit=9, end_ids=frozenset(),
        decode=lambda _: "",
    )  # fmt: skip
    lengths = []
    drafter.begin(one)
    for drafted, taken in ((10, 10), (10, 1), (4, 0), (0, 0), (2, 2), (6, 6)):
        propose = partial(drafter.open(one), Row())
        lengths.append(len(list(iter(propose, None))))
        drafter.close(drafted, taken)
    assert lengths == [10, 10, 4, 2, 2, 6]
    drafter.begin(one)
    assert drafter.open(one)(Row()) == 0
