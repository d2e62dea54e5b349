"""What worker/engine/protocol.py promises, asked of every engine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from threading import Thread
from typing import Any

import pytest

from tests.support.checkpoints import Checkpoint
from tests.support.collector import Collector, completed, outcomes, request
from tests.support.endpoint import EchoEndpoint
from tests.support.measured import embedding_of, measured, score_of
from tests.support.openai_servers import (
    EXECUTABLE,
    VLLM_PYTHON,
    executable,
    transformers_serve,
    vllm_serve,
)
from tests.support.processes import eventually
from tests.support.tiny_models import Kind
from worker.engine.protocol import (
    Cancelled,
    Completed,
    Embedded,
    Engine,
    EngineConfig,
    Failed,
    Measurement,
    MeasuringEngine,
    Outcome,
    Scored,
)
from worker.engine.registry import create

PROMPT = "Hello, I'm a language model, and I run a mill that grinds prompts all day long"

#: Tokens that are more than any test waits for: such a request runs until it is cancelled.
ENDLESS = {"max_tokens": 200, "ignore_eos": True}


@dataclass(frozen=True)
class Make:
    """Makes new, unstarted engines of one sort."""

    name: str
    make: Callable[[], Engine]
    #: Parameters of a request that runs until it is cancelled.
    endless: dict[str, Any] = field(default_factory=lambda: ENDLESS)

    def started(self) -> Engine:
        engine = self.make()
        engine.start()
        return engine


SORTS = [
    *("echo", "echo-slow", "gpt2-continuous", "gemma3-continuous", "gpt2-static", "t5", "mamba"),
    *("gpt2-lookup", "gemma3-draft"),
    # Where vLLM is installed, which has an environment of its own (docs/engines.md).
    *("vllm-gpt2", "vllm-gemma3"),
    # Where KerasHub is installed.
    *("keras-gpt2", "keras-gemma3-tied"),
    *("openai-own", "openai-serve", "openai-vllm", "openai-url"),
]

#: Of these an empty prompt is no empty list of tokens.
WRAPS_PROMPTS = {
    *("gemma3-continuous", "gemma3-draft", "t5", "vllm-gemma3", "keras-gemma3-tied"),
}

#: Models that have no chat template.
NO_CHATS = {
    *("gpt2-continuous", "gpt2-static", "gpt2-lookup", "t5", "mamba", "vllm-gpt2", "keras-gpt2"),
}

#: Where an endpoint is that the suite runs against too, its model, and the engine's `extensions`.
URL, MODEL, EXTENSIONS = (
    f"PROMPTMILL_TEST_OPENAI_{name}" for name in ("URL", "MODEL", "EXTENSIONS")
)

#: Sort -> test, and what the other side of the wire has not.
LACKS = {
    "openai-serve": {
        "test_given_logprobs_when_completed_then_there_is_one_per_token": (
            "transformers serve sends no log-probabilities"
        ),
        "test_given_a_limit_when_reached_then_the_reason_is_length": (
            "transformers serve has no ignore_eos"
        ),
    },
}


@pytest.fixture(autouse=True)
def _able(request: pytest.FixtureRequest, sort: Make) -> None:
    reason = LACKS.get(sort.name, {}).get(request.node.originalname)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module", params=SORTS)
def sort(
    request: pytest.FixtureRequest,
    checkpoint: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Make]:
    name: str = request.param
    if name.startswith("openai-"):
        with ExitStack() as resources:
            yield _endpoint(name, checkpoint, tmp_path_factory, resources)
    elif name == "echo":
        yield Make(name, lambda: create("echo", EngineConfig("echo")))
    elif name == "echo-slow":
        options = {"latency": "0.005", "capacity": "4"}
        yield Make(name, lambda: create("echo", EngineConfig("echo", options=options)))
    elif name.startswith("vllm-"):
        yield _vllm(name, checkpoint)
    elif name.startswith("keras-"):
        yield _keras(name, checkpoint)
    else:
        kind, _, way = name.partition("-")
        folder = checkpoint(kind)  # type: ignore[arg-type]
        assisted = {"lookup": {"prompt_lookup": "4"}, "draft": {"assistant": str(folder)}}
        options = assisted.get(way, {"batching": way or "auto"})
        config = EngineConfig(str(folder), "cpu", "float32", max_concurrency=4, options=options)
        yield Make(name, lambda: create("transformers", config))


def _endpoint(
    name: str,
    checkpoint: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
    resources: ExitStack,
) -> Make:
    """The engine `openai` over one of three servers."""
    endless = ENDLESS
    if name == "openai-own":
        own = resources.enter_context(EchoEndpoint(vllm=True, seconds_per_token=0.002))
        url, model, extensions = own.url, "echo", "vllm"
    elif name == "openai-serve":
        if executable() is None:
            pytest.skip(f"needs fastapi and uvicorn, here or where {EXECUTABLE} says")
        folder = tmp_path_factory.mktemp("serve")
        url, model = resources.enter_context(transformers_serve(checkpoint("gemma3"), folder))
        extensions, endless = "none", {"max_tokens": 16}  # one request after the other
    elif name == "openai-vllm":
        if VLLM_PYTHON not in os.environ:
            pytest.skip(f"{VLLM_PYTHON} names no Python that has vLLM")
        folder = tmp_path_factory.mktemp("serve")
        url, model = resources.enter_context(vllm_serve(checkpoint("gemma3-wide"), folder))
        extensions = "vllm"
    else:
        url, model = os.environ.get(URL, ""), os.environ.get(MODEL, "")
        if not url or not model:
            pytest.skip(f"{URL} and {MODEL} name no endpoint")
        extensions = os.environ.get(EXTENSIONS, "none")
        # Its model may be a real one, and slow.
        endless = {"max_tokens": 64, "ignore_eos": extensions == "vllm"}
    options = {"base_url": url, "extensions": extensions}
    config = EngineConfig(model, max_concurrency=4, options=options)
    return Make(name, lambda: create("openai", config), endless)


def _keras(name: str, checkpoint: Checkpoint) -> Make:
    pytest.importorskip("keras_hub", exc_type=ImportError)
    folder = checkpoint(name.removeprefix("keras-"))  # type: ignore[arg-type]
    config = EngineConfig(str(folder), "cpu", "float32", max_concurrency=4)
    return Make(name, lambda: create("keras", config))


def _vllm(name: str, checkpoint: Checkpoint) -> Make:
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed here")
    kinds: dict[str, Kind] = {"vllm-gpt2": "gpt2-wide", "vllm-gemma3": "gemma3-wide"}
    config = EngineConfig(
        str(checkpoint(kinds[name])),
        dtype="float32",
        max_concurrency=4,
        options={"kv_memory": "0.1", "enforce_eager": "on"},
    )
    return Make(name, lambda: create("vllm", config))


@pytest.fixture(scope="module")
def engine(sort: Make) -> Iterator[Engine]:
    engine = sort.started()
    yield engine
    engine.close()


def test_given_more_requests_than_capacity_when_submitted_then_each_is_answered_once(
    engine: Engine,
) -> None:
    wanted = [request(str(n), PROMPT[: 5 + n], max_tokens=1 + n % 7) for n in range(25)]
    answers = completed(engine, wanted)
    for one in wanted:
        answer = answers[one.id]
        assert [sample.index for sample in answer.samples] == [0]
        assert 1 <= answer.samples[0].completion_tokens <= (one.params.max_tokens or 0)
        assert answer.prompt_tokens >= 1
        assert answer.started_at > 1e9


def test_given_many_threads_when_all_submit_then_each_request_is_answered_once(
    engine: Engine,
) -> None:
    collector = Collector()

    def submit(thread: int) -> None:
        for n in range(5):
            engine.submit(request(f"{thread}-{n}", PROMPT, max_tokens=3), collector.on_done)

    threads = [Thread(target=submit, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = collector.wait(40)
    assert all(isinstance(one, Completed) for one in answers.values())
    assert set(Counter(name for name, _ in collector.answers).values()) == {1}


def test_given_n_when_completed_then_there_are_n_samples_in_order(engine: Engine) -> None:
    answer = completed(engine, [request("a", PROMPT, seed=3, n=3, temperature=1.0)])["a"]
    assert [sample.index for sample in answer.samples] == [0, 1, 2]
    assert len({sample.text for sample in answer.samples}) == 3


def test_given_the_same_seed_when_repeated_then_the_text_is_the_same(engine: Engine) -> None:
    first = completed(engine, [request("a", PROMPT, seed=5, n=2, temperature=1.0)])["a"]
    again = completed(engine, [request("b", PROMPT, seed=5, n=2, temperature=1.0)])["b"]
    other = completed(engine, [request("c", PROMPT, seed=6, n=2, temperature=1.0)])["c"]
    assert [one.text for one in again.samples] == [one.text for one in first.samples]
    assert [one.text for one in other.samples] != [one.text for one in first.samples]


def test_given_an_answer_when_it_is_asked_again_at_once_then_both_are_answered(
    engine: Engine,
) -> None:
    """As a worker does with an answer that will not do: from whichever thread tells it."""
    collector = Collector()

    def again(request_id: str, outcome: Outcome) -> None:
        collector.on_done(request_id, outcome)
        engine.submit(request(f"{request_id}#2", PROMPT, max_tokens=3), collector.on_done)

    for number in range(3):
        engine.submit(request(str(number), PROMPT, max_tokens=2), again)
    answers = collector.wait(6)
    assert sorted(answers) == sorted(str(n) + more for n in range(3) for more in ("", "#2"))
    assert all(isinstance(one, Completed) for one in answers.values())
    assert len(collector.answers) == 6


def test_prompt_of_token_ids_is_continued_as_it_is(engine: Engine) -> None:
    plain = request("a", PROMPT, max_tokens=4, ignore_eos=True)
    ids = replace(plain, prompt=None, prompt_ids=(5, 6, 7))
    unknown = replace(ids, id="b", prompt_ids=(5, 2**31 - 1))
    answers = outcomes(engine, [ids, unknown])
    answer = answers["a"]
    assert isinstance(answer, Completed)
    assert answer.prompt_tokens == 3
    assert answer.samples[0].completion_tokens == 4
    refused = answers["b"]  # an engine without a vocabulary of its own can't know it
    assert not isinstance(refused, Failed) or refused.code == "bad_prompt"


def test_given_a_limit_when_reached_then_the_reason_is_length(engine: Engine) -> None:
    sample = completed(engine, [request("a", PROMPT, max_tokens=4, ignore_eos=True)])["a"].samples[
        0
    ]
    assert (sample.finish_reason, sample.completion_tokens) == ("length", 4)


def test_given_a_stop_string_when_it_comes_then_the_text_ends_before_it(engine: Engine) -> None:
    full = completed(engine, [request("a", PROMPT, max_tokens=8)])["a"].samples[0].text
    # A stop inside the text, whose first occurrence is not at the very start.
    stop = next(char for at, char in enumerate(full) if at and full.index(char) == at)
    sample = completed(engine, [request("b", PROMPT, max_tokens=8, stop=[stop])])["b"].samples[0]
    assert sample.text == full[: full.index(stop)]
    assert sample.finish_reason == "stop"


def test_given_an_adapter_that_was_not_loaded_when_asked_for_then_it_fails_by_name(
    engine: Engine,
) -> None:
    outcome = outcomes(engine, [request("a", PROMPT, adapter="fin")])["a"]
    assert isinstance(outcome, Failed)
    assert outcome.code in {"unknown_adapter", "unsupported_parameter"}
    assert "adapter" in outcome.message
    assert not outcome.retriable


def test_given_echo_when_completed_then_the_text_begins_with_the_prompt(engine: Engine) -> None:
    plain = completed(engine, [request("a", PROMPT)])["a"].samples[0].text
    echoed = completed(engine, [request("b", PROMPT, echo=True)])["b"].samples[0].text
    assert echoed.startswith(PROMPT)
    assert echoed.endswith(plain)


def test_given_logprobs_when_completed_then_there_is_one_per_token(engine: Engine) -> None:
    answer = completed(engine, [request("a", PROMPT, logprobs=2), request("b", PROMPT)])
    sample = answer["a"].samples[0]
    assert sample.logprobs is not None
    assert len(sample.logprobs) == sample.completion_tokens
    for one in sample.logprobs:
        assert one.logprob <= 0
        assert one.top[0][2] == pytest.approx(one.logprob)
    assert answer["b"].samples[0].logprobs is None


def test_given_a_chat_when_completed_then_it_is_answered_or_said_why_not(
    engine: Engine, sort: Make
) -> None:
    chat = [{"role": "user", "content": PROMPT}]
    answer = outcomes(engine, [request("a", chat)])["a"]
    if sort.name in NO_CHATS or (sort.name == "openai-url" and isinstance(answer, Failed)):
        assert isinstance(answer, Failed)
        assert answer.code == "no_chat_template"
    else:
        assert isinstance(answer, Completed)
        assert answer.samples[0].completion_tokens >= 1
        assert answer.prompt_tokens >= 1


def test_given_bad_requests_among_good_ones_when_submitted_then_they_fail_alone(
    engine: Engine, sort: Make
) -> None:
    bad = {"no-room": request("no-room", PROMPT, max_length=1), "chat": request("chat", [])}
    if sort.name not in WRAPS_PROMPTS:
        bad["empty"] = request("empty", "")
    good = [request(f"good-{n}", PROMPT) for n in range(6)]
    answers = outcomes(engine, [*good[:3], *bad.values(), *good[3:]])
    assert all(isinstance(answers[one.id], Completed) for one in good)
    for name in bad:
        failed = answers[name]
        assert isinstance(failed, Failed)
        assert not failed.retriable
        assert "\n" not in failed.message


def test_given_running_and_waiting_requests_when_cancelled_then_they_say_so(sort: Make) -> None:
    if sort.name == "echo":
        pytest.skip("it answers inside submit: nothing is ever there to cancel")
    engine = sort.started()
    collector = Collector()
    for n in range(12):
        engine.submit(request(str(n), PROMPT, **sort.endless), collector.on_done)
    for n in range(0, 12, 2):
        engine.cancel(str(n))
    engine.cancel("nobody")
    answers = collector.wait(12)
    assert len(collector.answers) == 12
    cancelled = {name for name, one in answers.items() if isinstance(one, Cancelled)}
    assert cancelled <= {str(n) for n in range(0, 12, 2)}
    assert "10" in cancelled  # it waited behind the capacity of 4
    assert engine.stats().in_flight == 0
    assert completed(engine, [request("after", PROMPT)])
    engine.close()


def test_given_work_in_flight_when_closed_then_it_answers_cancelled_and_nothing_after(
    sort: Make,
) -> None:
    engine = sort.started()
    collector = Collector()
    for n in range(10):
        engine.submit(request(str(n), PROMPT, **sort.endless), collector.on_done)
    engine.close()
    answers = collector.wait(10)
    assert len(collector.answers) == 10
    if sort.name != "echo":
        assert any(isinstance(one, Cancelled) for one in answers.values())
    engine.close()
    engine.submit(request("late", PROMPT), collector.on_done)
    assert isinstance(collector.wait(11)["late"], Cancelled)


def test_given_answers_when_asked_then_stats_count_them(engine: Engine) -> None:
    before = engine.stats()
    answer = completed(engine, [request("a", PROMPT), request("b", PROMPT, n=2)])
    after = engine.stats()
    assert after.in_flight == 0
    assert after.stalled_for == 0.0
    prompts = sum(one.prompt_tokens for one in answer.values())
    assert after.prompt_tokens - before.prompt_tokens == prompts
    made = sum(s.completion_tokens for one in answer.values() for s in one.samples)
    assert after.completion_tokens - before.completion_tokens == made


def test_given_a_request_that_runs_when_asked_then_stats_count_its_tokens_so_far(
    sort: Make,
) -> None:
    if sort.name.startswith(("echo", "openai-")):
        pytest.skip("an answer comes whole there")
    engine = sort.started()
    try:
        before = engine.stats().completion_tokens
        collector = Collector()
        engine.submit(request("long", PROMPT, **ENDLESS), collector.on_done)
        eventually(
            lambda: collector.answers or engine.stats().completion_tokens > before,
            what="a token, or the answer",
        )
        assert not collector.answers
    finally:
        engine.close()


def test_given_an_engine_when_started_then_it_says_what_it_is(sort: Make) -> None:
    engine = sort.make()
    info = engine.start()
    engine.close()
    assert info.engine in (sort.name.partition("-")[0], "transformers")
    assert info.capacity >= 1
    assert info.kv_tokens is None or info.kv_tokens >= info.capacity


# --- engines that measure, too --------------------------------------------------------------


@pytest.fixture
def measuring(engine: Engine) -> MeasuringEngine:
    if not isinstance(engine, MeasuringEngine):
        pytest.skip("it only generates")
    return engine


def both(number: int, text: str = PROMPT) -> list[Measurement]:
    return [
        score_of(f"score-{number}", text[: 6 + number], text[6 + number :]),
        embedding_of(f"embed-{number}", text[: 6 + number]),
    ]


def test_given_many_threads_when_all_measure_then_each_request_is_answered_once(
    measuring: MeasuringEngine,
) -> None:
    collector = Collector()

    def ask(thread: int) -> None:
        for one in both(thread):
            measuring.measure(one, collector.on_done)

    threads = [Thread(target=ask, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = collector.wait(32)
    assert set(Counter(name for name, _ in collector.answers).values()) == {1}
    for name, answer in answers.items():
        if name.startswith("score"):
            assert isinstance(answer, Scored)
            assert answer.logprob < 0 < answer.tokens
        else:
            assert isinstance(answer, Embedded)
            assert len(answer.vector) > 1
        assert answer.prompt_tokens >= 1
        assert answer.started_at > 1e9


def test_given_the_same_text_when_measured_beside_others_then_the_numbers_are_the_same(
    measuring: MeasuringEngine,
) -> None:
    alone = measured(measuring, both(3))
    crowd = [one for number in range(8) for one in both(number)]
    together = measured(measuring, crowd)
    score, again = alone["score-3"], together["score-3"]
    assert isinstance(score, Scored)
    assert isinstance(again, Scored)
    assert again.logprob == pytest.approx(score.logprob, abs=2e-3)
    vector, same = alone["embed-3"], together["embed-3"]
    assert isinstance(vector, Embedded)
    assert isinstance(same, Embedded)
    assert list(same.vector) == pytest.approx(list(vector.vector), rel=1e-3, abs=1e-3)


def test_given_texts_without_a_token_to_measure_when_asked_then_they_fail_alone(
    measuring: MeasuringEngine, sort: Make
) -> None:
    wanted: list[Measurement] = [score_of("good", PROMPT, " more"), embedding_of("fine", PROMPT)]
    if sort.name not in WRAPS_PROMPTS:
        wanted += [embedding_of("empty", ""), score_of("nothing", "")]
    answers = measured(measuring, wanted)
    assert isinstance(answers.pop("good"), Scored)
    assert isinstance(answers.pop("fine"), Embedded)
    for answer in answers.values():
        assert isinstance(answer, Failed)
        assert not answer.retriable
        assert "\n" not in answer.message


def test_given_measurements_in_flight_when_cancelled_or_closed_then_each_is_answered_once(
    sort: Make,
) -> None:
    engine = sort.started()
    if not isinstance(engine, MeasuringEngine):
        engine.close()
        pytest.skip("it only generates")
    collector = Collector()
    for number in range(10):
        for one in both(number):
            engine.measure(one, collector.on_done)
    engine.cancel("score-9")
    engine.cancel("embed-8")
    engine.cancel("nobody")
    engine.close()
    answers = collector.wait(20)
    assert set(Counter(name for name, _ in collector.answers).values()) == {1}
    assert all(isinstance(one, Scored | Embedded | Cancelled) for one in answers.values())
    engine.measure(embedding_of("late", PROMPT), collector.on_done)
    assert isinstance(collector.wait(21)["late"], Cancelled)


def test_given_measurements_when_answered_then_stats_count_them(
    measuring: MeasuringEngine,
) -> None:
    before = measuring.stats()
    answers = measured(measuring, both(2))
    after = measuring.stats()
    score, vector = answers["score-2"], answers["embed-2"]
    assert isinstance(score, Scored)
    assert isinstance(vector, Embedded)
    assert after.in_flight == 0
    assert after.prompt_tokens - before.prompt_tokens == score.prompt_tokens + vector.prompt_tokens
    assert after.completion_tokens - before.completion_tokens == score.tokens
