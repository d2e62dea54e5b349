from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.collector import Collector, completed, outcomes, request
from tests.support.measured import embedding_of, measured, score_of
from worker.engine.echo import EchoEngine
from worker.engine.echo_words import DIMENSIONS
from worker.engine.protocol import (
    Cancelled,
    Completed,
    Embedded,
    EngineConfig,
    Failed,
    Scored,
)

PROMPT = "one two three four five"


def started(**options: str) -> EchoEngine:
    engine = EchoEngine(EngineConfig("echo", options=options))
    engine.start()
    return engine


@pytest.fixture
def echo() -> Iterator[EchoEngine]:
    engine = started(faults="on")
    yield engine
    engine.close()


def text(engine: EchoEngine, **params: Any) -> tuple[str, str, int]:
    sample = completed(engine, [request("a", PROMPT, **params)])["a"].samples[0]
    return sample.text, sample.finish_reason, sample.completion_tokens


def test_given_room_when_greedy_then_the_prompt_comes_back_whole(echo: EchoEngine) -> None:
    assert text(echo) == (PROMPT, "stop", 5)


def test_given_a_limit_when_reached_then_the_text_is_cut(echo: EchoEngine) -> None:
    assert text(echo, max_tokens=2) == ("one two", "length", 2)
    assert text(echo, max_length=8) == ("one two three", "length", 3)


def test_given_ignore_eos_when_greedy_then_the_words_repeat(echo: EchoEngine) -> None:
    assert text(echo, max_tokens=7, ignore_eos=True) == (PROMPT + " one two", "length", 7)


def test_given_a_stop_when_reached_then_the_text_ends_before_it(echo: EchoEngine) -> None:
    assert text(echo, stop=[" three"]) == ("one two", "stop", 3)
    assert text(echo, stop_token_ids=[1]) == ("one two", "stop", 2)


def test_given_a_seed_when_sampled_then_the_first_word_shows_it(echo: EchoEngine) -> None:
    sampled = request("a", PROMPT, seed=2, temperature=1.0, n=2)
    answer = completed(echo, [sampled])["a"]
    assert [one.text.split()[0] for one in answer.samples] == ["three", "four"]


def test_given_a_chat_when_completed_then_the_last_message_is_echoed(echo: EchoEngine) -> None:
    chat = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "good day"}]
    assert completed(echo, [request("a", chat)])["a"].samples[0].text == "good day"


def test_given_fault_markers_when_on_then_each_breaks_its_own_request(echo: EchoEngine) -> None:
    collector = Collector()
    echo.submit(request("hang", "do [[hang]]"), collector.on_done)
    answers = outcomes(
        echo,
        [request("fail", "a [[fail]]"), request("retry", "[[retry]] b"), request("ok", PROMPT)],
    )
    assert isinstance(answers["ok"], Completed)
    for name, retriable in (("fail", False), ("retry", True)):
        failed = answers[name]
        assert isinstance(failed, Failed)
        assert (failed.code, failed.retriable) == ("echo_fault", retriable)
    assert echo.stats().in_flight == 1
    echo.cancel("hang")
    assert collector.wait(1) == {"hang": Cancelled()}


def test_given_fault_markers_when_off_then_they_are_words() -> None:
    engine = started()
    answer = completed(engine, [request("a", "a [[fail]]")])["a"]
    engine.close()
    assert answer.samples[0].text == "a [[fail]]"


def test_given_a_latency_when_full_then_a_cancelled_slot_goes_to_the_next() -> None:
    engine = started(latency="1000", capacity="1")
    collector = Collector()
    engine.submit(request("first", PROMPT), collector.on_done)
    engine.submit(request("second", PROMPT), collector.on_done)
    assert engine.stats().in_flight == 2
    engine.cancel("first")
    assert list(collector.wait(1)) == ["first"]
    engine.close()
    assert isinstance(collector.wait(2)["second"], Cancelled)


def test_given_an_id_in_flight_when_it_comes_again_then_the_second_fails() -> None:
    engine = started(latency="1000")
    collector = Collector()
    engine.submit(request("a", PROMPT), collector.on_done)
    engine.submit(request("a", PROMPT), collector.on_done)
    answer = collector.wait(1)["a"]
    engine.close()
    assert isinstance(answer, Failed)
    assert answer.code == "duplicate_id"


def test_given_words_when_scored_then_a_word_costs_its_characters(echo: EchoEngine) -> None:
    wanted = [
        score_of("after", "one two", "three four", logprobs=1),
        score_of("alone", "one three four"),
        score_of("nothing", "one"),
    ]
    answers = measured(echo, wanted)
    after, alone, nothing = (answers[one.id] for one in wanted)
    assert isinstance(after, Scored)
    assert (after.logprob, after.tokens, after.prompt_tokens) == (-9.0, 2, 2)
    assert after.logprobs is not None
    assert [one.logprob for one in after.logprobs] == [-5.0, -4.0]
    assert isinstance(alone, Scored)
    assert (alone.logprob, alone.tokens, alone.prompt_tokens) == (-9.0, 2, 1)
    assert alone.logprobs is None
    assert isinstance(nothing, Failed)
    assert nothing.code == "nothing_to_score"


def test_given_words_when_embedded_then_the_vector_is_theirs_alone(echo: EchoEngine) -> None:
    poolings = ("mean", "last", "first")
    wanted = [embedding_of(one, "one two", pooling=one) for one in poolings]
    single = [embedding_of("1", "one"), embedding_of("2", "two", normalize=True)]
    answers = measured(echo, [*wanted, *single])
    vectors = {}
    for name, one in answers.items():
        assert isinstance(one, Embedded)
        vectors[name] = list(one.vector)
    assert {len(one) for one in vectors.values()} == {DIMENSIONS}
    assert vectors["first"] == vectors["1"]
    middle = [(a + b) / 2 for a, b in zip(vectors["first"], vectors["last"], strict=True)]
    assert vectors["mean"] == pytest.approx(middle)
    assert math.hypot(*vectors["2"]) == pytest.approx(1)
