"""A model shared by processes against the same model in one, in float32 on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.checkpoints import Checkpoint
from tests.support.collector import completed, request
from tests.support.matrix import of_matrix
from tests.support.measured import embedding_of, measured, score_of
from tests.support.tiny_models import Kind
from worker.engine.protocol import (
    Completed,
    Embedded,
    Engine,
    EngineConfig,
    EngineInfo,
    Request,
    Scored,
)
from worker.engine.registry import create

SENTENCE = "Hello, I'm a language model, and the quick brown fox counts one two three four "

PROMPTS = [
    "The",
    "Der Müller mahlt das Korn, die Bäckerin",
    "日本語 and émigré",
    *((SENTENCE * 4)[: 12 + 90 * n] for n in range(4)),
]

SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "mill",
        "schema": {
            "type": "object",
            "properties": {"open": {"type": "boolean"}, "sacks": {"enum": [1, 2, 3]}},
            "required": ["open", "sacks"],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True)
class Way:
    kind: Kind
    processes: int = 2
    max_batch_tokens: int | None = None
    attention: str = "packed"

    def __str__(self) -> str:
        parts = (self.kind, self.processes, self.max_batch_tokens, self.attention)
        return "-".join(str(part) for part in parts if part)


WAYS = [
    # Two key heads, one each; biases; a width that can't be halved.
    Way("llama-biased"),
    # One key head, which both have; windows. Long prompts are read in pieces, each after a part
    # of its own past.
    Way("gemma3", max_batch_tokens=24),
    # An output that is the embedding, cut by the vocabulary.
    Way("gemma3-tied"),
    Way("llama-biased", attention="sdpa"),
]


@dataclass(frozen=True)
class Pair:
    way: Way
    #: In one process.
    alone: Engine
    alone_info: EngineInfo
    shared: Engine
    info: EngineInfo


@pytest.fixture(scope="module", params=of_matrix(WAYS, *map(str, WAYS[:2])), ids=str)
def pair(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Iterator[Pair]:
    way: Way = request.param
    alone, shared = (_engine(way, checkpoint, processes) for processes in (1, way.processes))
    try:
        yield Pair(way, alone, alone.start(), shared, shared.start())
    finally:
        shared.close()
        alone.close()


def _engine(way: Way, checkpoint: Checkpoint, processes: int) -> Engine:
    options = {"tensor_parallel": str(processes), "attention": way.attention}
    config = EngineConfig(
        model=str(checkpoint(way.kind)),
        device="cpu",
        dtype="float32",
        max_concurrency=6,
        max_batch_tokens=way.max_batch_tokens,
        kv_memory_fraction=0.001 if way.attention == "sdpa" else None,
        options=options,
    )
    return create("transformers", config)


def both(pair: Pair, requests: list[Request]) -> tuple[dict[str, Completed], dict[str, Completed]]:
    return completed(pair.alone, requests), completed(pair.shared, requests)


def texts(answers: dict[str, Completed]) -> dict[str, list[tuple[str, str, int]]]:
    return {
        name: [(one.text, one.finish_reason, one.completion_tokens) for one in answer.samples]
        for name, answer in answers.items()
    }


def test_given_prompts_when_greedy_then_the_texts_are_those_of_one_process(pair: Pair) -> None:
    alone, shared = both(pair, [request(text, text, max_tokens=16) for text in PROMPTS])
    assert texts(shared) == texts(alone)


def test_given_seeds_when_sampled_then_the_texts_are_those_of_one_process(pair: Pair) -> None:
    requests = [
        request(text, text, seed=number, temperature=1.0, top_p=0.9, n=2, max_tokens=10)
        for number, text in enumerate(PROMPTS)
    ]
    alone, shared = both(pair, requests)
    assert texts(shared) == texts(alone)


def test_given_logprobs_when_asked_for_then_they_are_those_of_one_process(pair: Pair) -> None:
    requests = [request(text, text, top_logprobs=2, logprobs=True) for text in PROMPTS]
    alone, shared = both(pair, requests)
    for name, answer in alone.items():
        told, expected = shared[name].samples[0].logprobs, answer.samples[0].logprobs
        assert told is not None
        assert expected is not None
        assert [one.token_id for one in told] == [one.token_id for one in expected]
        assert [one.logprob for one in told] == pytest.approx(
            [one.logprob for one in expected], abs=1e-4
        )


def test_given_a_schema_when_followed_then_the_text_is_that_of_one_process(pair: Pair) -> None:
    requests = [request(text, text, response_format=SCHEMA, max_tokens=60) for text in PROMPTS[:3]]
    alone, shared = both(pair, requests)
    assert texts(shared) == texts(alone)


def test_given_texts_when_scored_while_others_are_made_then_as_in_one_process(pair: Pair) -> None:
    wanted = [score_of(text, text, " and the mill", logprobs=True) for text in PROMPTS]
    more = [request(text, text, max_tokens=16) for text in PROMPTS]
    alone = measured(pair.alone, wanted)
    shared = measured(pair.shared, wanted)
    assert texts(completed(pair.shared, more)) == texts(completed(pair.alone, more))
    for name, expected in alone.items():
        told = shared[name]
        assert isinstance(expected, Scored)
        assert isinstance(told, Scored)
        assert told.logprob == pytest.approx(expected.logprob, abs=1e-3)


def test_given_texts_when_embedded_then_as_in_one_process(pair: Pair) -> None:
    wanted = [embedding_of(text, text) for text in PROMPTS]
    alone, shared = measured(pair.alone, wanted), measured(pair.shared, wanted)
    for name, expected in alone.items():
        told = shared[name]
        assert isinstance(expected, Embedded)
        assert isinstance(told, Embedded)
        assert list(told.vector) == pytest.approx(list(expected.vector), abs=1e-4)


def test_given_several_processes_when_told_of_then_the_model_is_one(pair: Pair) -> None:
    number = pair.way.processes
    assert pair.info.device == f"cpu×{number}"
    assert pair.info.backend == f"{pair.alone_info.backend}, tensor parallel {number}"
    assert pair.info.parameters == pair.alone_info.parameters
    assert pair.info.context_length == pair.alone_info.context_length
    assert pair.info.kv_tokens is not None
    assert pair.info.capacity == 6
