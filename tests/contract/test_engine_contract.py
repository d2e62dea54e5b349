"""What worker/engine/protocol.py promises, asked of every engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Thread

import pytest

from tests.support.checkpoints import Checkpoint
from tests.support.collector import Collector, completed, outcomes, request
from tests.support.measured import embedding_of, measured, score_of
from worker.engine.protocol import (
    Cancelled,
    Completed,
    Embedded,
    Engine,
    EngineConfig,
    Failed,
    Measurement,
    MeasuringEngine,
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

    def started(self) -> Engine:
        engine = self.make()
        engine.start()
        return engine


SORTS = ["echo", "echo-slow", "gpt2-continuous", "gemma3-continuous", "gpt2-static", "t5", "mamba"]

#: Of these an empty prompt is no empty list of tokens.
WRAPS_PROMPTS = {"gemma3-continuous", "t5"}


@pytest.fixture(scope="module", params=SORTS)
def sort(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Make:
    name: str = request.param
    if name == "echo":
        return Make(name, lambda: create("echo", EngineConfig("echo")))
    if name == "echo-slow":
        options = {"latency": "0.005", "capacity": "4"}
        return Make(name, lambda: create("echo", EngineConfig("echo", options=options)))
    kind, _, batching = name.partition("-")
    folder = checkpoint(kind)  # type: ignore[arg-type]
    config = EngineConfig(
        str(folder), "cpu", "float32", max_concurrency=4, options={"batching": batching or "auto"}
    )
    return Make(name, lambda: create("transformers", config))


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
        engine.submit(request(str(n), PROMPT, **ENDLESS), collector.on_done)
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
        engine.submit(request(str(n), PROMPT, **ENDLESS), collector.on_done)
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


def test_given_an_engine_when_started_then_it_says_what_it_is(sort: Make) -> None:
    engine = sort.make()
    info = engine.start()
    engine.close()
    assert info.engine == sort.name.partition("-")[0] or info.engine == "transformers"
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
