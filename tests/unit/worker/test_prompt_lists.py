"""A list of prompts is asked one by one and answered as one, in order, exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from db.modes import EmbedParams, ScoreParams
from db.sampling import SamplingParams, seed_of_prompt
from tests.support.collector import Collector
from worker.engine.echo import EchoEngine
from worker.engine.protocol import (
    Cancelled,
    Completed,
    Embedded,
    EmbedRequest,
    EngineConfig,
    Failed,
    Measured,
    MeasuringEngine,
    OnDone,
    Request,
    Scored,
    ScoreRequest,
)
from worker.prompt_lists import with_prompt_lists


def echo(**options: str) -> MeasuringEngine:
    engine = with_prompt_lists(EchoEngine(EngineConfig(model="m", options=options)))
    assert isinstance(engine, MeasuringEngine)
    engine.start()
    return engine


@pytest.fixture
def engine() -> Iterator[MeasuringEngine]:
    engine = echo(faults="on")
    yield engine
    engine.close()


def several(*prompts: str | list[int], id_: str = "a", **params: Any) -> Request:
    given = SamplingParams.model_validate({"temperature": 0, **params})
    return Request(id_, given, seed=7, prompts=prompts)


def test_list_of_prompts_is_one_answer_in_order(engine: MeasuringEngine) -> None:
    collector = Collector()
    engine.submit(several("one two", [5, 6, 7], "three", n=2), collector.on_done)
    outcome = collector.wait(1)["a"]
    assert isinstance(outcome, Completed)
    assert [(one.index, one.text) for one in outcome.samples] == [
        *((0, "one two"), (1, "one two")),
        *((2, "5 6 7"), (3, "5 6 7")),
        *((4, "three"), (5, "three")),
    ]
    assert outcome.prompt_tokens == 6
    assert collector.answers == [("a", outcome)]


def test_equal_prompts_of_a_list_are_drawn_apart(engine: MeasuringEngine) -> None:
    words = " ".join(map(str, range(1000)))
    collector = Collector()
    engine.submit(several(words, words, temperature=1, max_tokens=1), collector.on_done)
    outcome = collector.wait(1)["a"]
    assert isinstance(outcome, Completed)
    first, second = (int(one.text) for one in outcome.samples)
    assert (first, second) == (7, seed_of_prompt(7, 1) % 1000)
    assert first != second


def test_one_bad_prompt_fails_its_list(engine: MeasuringEngine) -> None:
    collector = Collector()
    engine.submit(several("one", "[[fail]]", "three"), collector.on_done)
    outcome = collector.wait(1)["a"]
    assert isinstance(outcome, Failed)
    assert outcome.code == "echo_fault"
    assert len(collector.answers) == 1


def test_bad_prompt_stops_the_work_on_its_list() -> None:
    engine = echo(faults="on", latency="60")
    collector = Collector()
    # The one hangs; the other, refused at once, must not wait for it.
    engine.submit(several("[[hang]]", "two", adapter="none"), collector.on_done)
    engine.cancel("a")
    assert isinstance(collector.wait(1)["a"], Failed | Cancelled)
    engine.close()


def test_cancelled_list_answers_once() -> None:
    engine = echo(latency="60")
    collector = Collector()
    engine.submit(several("one", "two", "three"), collector.on_done)
    engine.submit(several("four", id_="b"), collector.on_done)
    assert engine.stats().in_flight == 4
    engine.cancel("a")
    assert collector.wait(1) == {"a": Cancelled()}
    assert engine.stats().in_flight == 1
    engine.close()
    assert collector.wait(2) == {"a": Cancelled(), "b": Cancelled()}
    assert len(collector.answers) == 2


def test_list_of_texts_is_measured_in_order(engine: MeasuringEngine) -> None:
    collector = Collector()
    engine.measure(EmbedRequest("a", EmbedParams(), prompts=("one", [5])), collector.on_done)
    engine.measure(ScoreRequest("b", ScoreParams(), prompts=("a bc", "a bcd")), collector.on_done)
    answers = collector.wait(2)
    embedded, scored = answers["a"], answers["b"]
    assert isinstance(embedded, Measured)
    assert isinstance(scored, Measured)
    for at, prompt in enumerate(("one", "5")):
        engine.measure(EmbedRequest(f"{at}", EmbedParams(), prompt), collector.on_done)
    alone = collector.wait(4)
    vectors = [alone[f"{at}"] for at in range(2)]
    assert [one.vector for one in embedded.measurements if isinstance(one, Embedded)] == [
        one.vector for one in vectors if isinstance(one, Embedded)
    ]
    assert [one.logprob for one in scored.measurements if isinstance(one, Scored)] == [-2, -3]
    assert embedded.prompt_tokens == 2


def test_engine_that_raises_fails_the_list() -> None:
    class Broken(EchoEngine):
        def submit(self, request: Request, on_done: OnDone) -> None:
            raise RuntimeError("no")

    collector = Collector()
    with_prompt_lists(Broken(EngineConfig(model="m"))).submit(
        several("one", "two"), collector.on_done
    )
    outcome = collector.wait(1)["a"]
    assert isinstance(outcome, Failed)
    assert outcome.code == "internal_error"
    assert len(collector.answers) == 1
