"""Structured output by a real model: every text is what was asked for, alone or in a batch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import jsonschema
import pytest

from tests.support.checkpoints import Checkpoint
from tests.support.collector import completed, outcomes, request
from tests.support.collector import request as make
from tests.support.gpu import skip_without
from tests.support.openai_servers import VLLM_PYTHON, vllm_serve
from worker.engine.protocol import Completed, Engine, EngineConfig, Failed
from worker.engine.registry import create

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["miller", "baker"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "age", "kind", "tags"],
    "additionalProperties": False,
}


def schema(wanted: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": wanted}}
    return {"response_format": form}


SORTS = [
    *("gpt2-continuous", "gemma3-continuous", "gpt2-static", "t5"),
    *("gpt2-continuous-cuda", "gemma3-continuous-cuda", "gpt2-static-cuda"),
    # Where they are installed.
    *("gpt2-keras", "gpt2-vllm", "gemma3-served"),
]


@pytest.fixture(scope="module", params=SORTS)
def engine(
    request: pytest.FixtureRequest,
    checkpoint: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    words: list[Any] = [*request.param.split("-"), "", ""]
    kind, way, device = words[:3]
    skip_without(device)
    with ExitStack() as resources:
        if way == "keras":
            pytest.importorskip("keras_hub", exc_type=ImportError)
            engine = create("keras", EngineConfig(str(checkpoint(kind)), "cpu", "float32"))
        elif way == "vllm":
            pytest.importorskip("vllm", exc_type=ImportError)
            options = {"kv_memory": "0.1", "enforce_eager": "on"}
            folder = str(checkpoint("gpt2-wide"))
            engine = create("vllm", EngineConfig(folder, dtype="float32", options=options))
        elif way == "served":
            if VLLM_PYTHON not in os.environ:
                pytest.skip(f"{VLLM_PYTHON} names no Python that has vLLM")
            server = vllm_serve(checkpoint("gemma3-wide"), tmp_path_factory.mktemp("serve"))
            url, model = resources.enter_context(server)
            options = {"base_url": url, "extensions": "vllm"}
            engine = create("openai", EngineConfig(model, options=options))
        else:
            options = {"batching": way or "auto"}
            folder = str(checkpoint(kind))
            config = EngineConfig(folder, device or "cpu", "float32", options=options)
            engine = create("transformers", config)
        engine.start()
        yield engine
        engine.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_given_a_schema_when_generated_then_every_text_parses_and_validates(
    engine: Engine, temperature: float
) -> None:
    wanted = [
        request(str(n), f"A person: {n}", seed=n, temperature=temperature, n=2, max_tokens=150,
                **schema(PERSON))
        for n in range(6)
    ]  # fmt: skip
    free = [request(f"free-{n}", "Hello, I", max_tokens=9, ignore_eos=True) for n in range(4)]
    answers = completed(engine, [*wanted, *free])
    for one in wanted:
        for sample in answers[one.id].samples:
            assert sample.finish_reason == "stop", sample.text
            jsonschema.validate(json.loads(sample.text), PERSON)
    for one in free:
        assert answers[one.id].samples[0].completion_tokens == 9


def test_given_a_schema_when_others_share_the_batch_then_free_texts_stay_the_same(
    engine: Engine,
) -> None:
    free = request("free", "Hello, I'm a", temperature=0.9, seed=5, max_tokens=12)
    alone = completed(engine, [free])["free"].samples
    guided = [request(str(n), "A", max_tokens=20, seed=n, **schema(PERSON)) for n in range(5)]
    assert completed(engine, [*guided, free])["free"].samples == alone


def test_given_a_pattern_when_generated_then_the_whole_text_matches(engine: Engine) -> None:
    pattern = r"([0-9]{4})-(0[1-9]|1[0-2])"
    wanted = [
        request(str(n), "When?", temperature=1, seed=n, max_tokens=40, regex=pattern)
        for n in range(8)
    ]
    for answer in completed(engine, wanted).values():
        assert re.fullmatch(pattern, answer.samples[0].text)
        assert answer.samples[0].finish_reason == "stop"


def test_given_a_choice_when_generated_then_the_text_is_one_of_them(engine: Engine) -> None:
    given = ["positive", "negative", 'so "so"', "weiß nicht"]
    wanted = [
        request(str(n), f"{n}:", temperature=2, seed=n, choice=given, max_tokens=40)
        for n in range(20)
    ]
    texts = {answer.samples[0].text for answer in completed(engine, wanted).values()}
    assert texts <= set(given)
    assert len(texts) > 1


@pytest.mark.parametrize(
    "grammar", ['root ::= ("ab" | "cd")+ "."', 'start: ("ab" | "cd")+ "."'], ids=["gbnf", "lark"]
)
def test_given_a_grammar_when_generated_then_the_text_follows_it(
    engine: Engine, grammar: str
) -> None:
    wanted = [
        request(str(n), "x", temperature=1, seed=n, max_tokens=30, grammar=grammar)
        for n in range(8)
    ]
    for answer in completed(engine, wanted).values():
        for sample in answer.samples:
            complete = re.fullmatch(r"(ab|cd)+\.", sample.text)
            assert complete or sample.finish_reason == "length"


def test_given_any_json_object_when_generated_then_it_parses_or_ran_out_of_tokens(
    engine: Engine,
) -> None:
    form = {"type": "json_object"}
    wanted = [
        request(str(n), "{", temperature=1, seed=n, response_format=form, max_tokens=60)
        for n in range(8)
    ]
    for answer in completed(engine, wanted).values():
        sample = answer.samples[0]
        if sample.finish_reason == "stop":
            assert isinstance(json.loads(sample.text), dict)


def test_given_a_structure_and_ignore_eos_when_complete_then_it_stops(engine: Engine) -> None:
    answer = completed(engine, [request("a", "x", regex="abc", ignore_eos=True, max_tokens=20)])
    assert answer["a"].samples[0].text == "abc"


def test_given_logprobs_when_guided_then_they_are_the_models_own(
    engine: Engine, request: pytest.FixtureRequest
) -> None:
    if {"vllm", "served"} & set(request.node.callspec.id.split("-")):
        pytest.skip("vLLM tells them among the tokens that the structure allows")
    asked = make("a", "Hello", regex="zq", logprobs=True)
    answer = completed(engine, [asked])["a"]
    logprobs = answer.samples[0].logprobs
    assert logprobs is not None
    assert all(one.logprob < 0 for one in logprobs)


def test_given_a_grammar_that_explodes_when_generated_then_the_job_fails_and_says_why(
    engine: Engine,
) -> None:
    bomb = "start: a{1,1000000}\na: b{1,100000}\nb: /[a-z]{1,100}/"
    outcome = outcomes(engine, [request("a", "x", max_tokens=5, grammar=bomb)])["a"]
    if isinstance(outcome, Failed):
        assert outcome.code in {"bad_structure", "structure_failed"}
        assert outcome.message
    else:
        assert isinstance(outcome, Completed)
