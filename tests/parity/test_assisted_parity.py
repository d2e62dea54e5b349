"""Assisted decoding against the plain engine: the same text, token for token, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.support.checkpoints import Checkpoint
from tests.support.collector import completed, request
from tests.support.gpu import skip_without
from tests.support.matrix import of_matrix
from tests.support.tiny_models import CONTEXT_LENGTH, Kind
from worker.engine.protocol import Completed, Engine, EngineConfig, Request
from worker.engine.registry import create

#: Models, and where they run.
SUBJECTS = ("gpt2-cpu", "llama-cpu", "gemma3-cpu", "gemma3-cuda")
#: Who proposes tokens: the prompt, the model itself, another one, or another at a fixed length.
WAYS = ("lookup", "itself", "other", "other-4")

#: The Gemma-shaped model's window is 16 tokens: prompts shorter and longer than that.
PROMPTS = [
    "The",
    "One, two, three, one, two, three, one, two,",
    "Hello, I'm a language model, and the quick brown fox counts one two three four " * 2,
]


@pytest.fixture(scope="module")
def another(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Kind -> a model that is often, but not always, right about the one of that kind."""

    def build(kind: Kind) -> Path:
        folder = tmp_path_factory.mktemp("another") / kind
        model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint(kind))
        noise = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.06 * weight.std() * torch.randn(weight.shape, generator=noise)
        model.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(checkpoint(kind)).save_pretrained(folder)
        return folder

    return build


@dataclass(frozen=True)
class Pair:
    """The same model with and without assistance."""

    way: str
    plain: Engine
    assisted: Engine

    def both(self, requests: list[Request]) -> list[tuple[Completed, Completed]]:
        plain, assisted = completed(self.plain, requests), completed(self.assisted, requests)
        return [(plain[one.id], assisted[one.id]) for one in requests]

    @property
    def tally(self) -> Any:
        engine: Any = self.assisted
        return engine._running.backend.tally


@pytest.fixture(scope="module", params=of_matrix(SUBJECTS, "gemma3-cpu", "gemma3-cuda"))
def subject(request: pytest.FixtureRequest) -> tuple[Any, str]:
    kind, _, device = request.param.partition("-")
    skip_without(device)
    return kind, device


@pytest.fixture(scope="module")
def plain(subject: tuple[Any, str], checkpoint: Checkpoint) -> Iterator[Engine]:
    kind, device = subject
    engine = create("transformers", EngineConfig(str(checkpoint(kind)), device, "float32"))
    engine.start()
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=of_matrix(WAYS, "lookup", "other"))
def pair(
    request: pytest.FixtureRequest,
    subject: tuple[Any, str],
    plain: Engine,
    checkpoint: Checkpoint,
    another: Any,
) -> Iterator[Pair]:
    kind, device = subject
    folder = checkpoint(kind)
    options = {
        "lookup": lambda: {"prompt_lookup": "5"},
        "itself": lambda: {"assistant": str(folder)},
        "other": lambda: {"assistant": str(another(kind))},
        "other-4": lambda: {"assistant": str(another(kind)), "draft_tokens": "4"},
    }[request.param]()
    # Prompts are read in pieces of 24 tokens.
    config = EngineConfig(str(folder), device, "float32", max_batch_tokens=24, options=options)
    engine = create("transformers", config)
    engine.start()
    yield Pair(request.param, plain, engine)
    engine.close()


def token_ids(answer: Completed) -> list[list[int]]:
    return [[one.token_id for one in sample.logprobs or ()] for sample in answer.samples]


def agree(plain: Completed, assisted: Completed) -> None:
    assert token_ids(assisted) == token_ids(plain)
    for sample, expected in zip(assisted.samples, plain.samples, strict=True):
        assert (sample.text, sample.finish_reason) == (expected.text, expected.finish_reason)
        assert sample.completion_tokens == expected.completion_tokens
        for one, other in zip(sample.logprobs or (), expected.logprobs or (), strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
            assert [token for _, token, _, _ in one.top] == [token for _, token, _, _ in other.top]


SAMPLED: list[dict[str, Any]] = [
    {"temperature": 1.0, "n": 3},
    {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.3},
]


def test_given_greedy_prompts_when_assisted_then_tokens_and_logprobs_are_the_same(
    pair: Pair,
) -> None:
    requests = [
        request(str(n), prompt, max_tokens=24, logprobs=3, ignore_eos=True)
        for n, prompt in enumerate(PROMPTS)
    ]
    before = pair.tally.taken
    for plain, assisted in pair.both(requests):
        agree(plain, assisted)
    if pair.way != "lookup":
        assert pair.tally.taken > before


def test_given_seeds_when_assisted_then_samples_are_the_same(pair: Pair) -> None:
    requests = [
        request(f"{n}-{at}", prompt, seed=n, max_tokens=16, logprobs=2, **params)
        for n, prompt in enumerate(PROMPTS)
        for at, params in enumerate(SAMPLED)
    ]
    for plain, assisted in pair.both(requests):
        agree(plain, assisted)


def test_given_a_stop_string_within_a_draft_when_assisted_then_the_text_ends_there(
    pair: Pair,
) -> None:
    whole = completed(pair.plain, [request("a", PROMPTS[1], max_tokens=16, logprobs=True)])["a"]
    text = whole.samples[0].text
    stops = [text[at : at + 2] for at in range(1, len(text) - 2, 3)]
    requests = [
        request(str(n), PROMPTS[1], max_tokens=16, logprobs=1, stop=[stop])
        for n, stop in enumerate(stops[:6])
    ]
    for plain, assisted in pair.both(requests):
        agree(plain, assisted)


def test_given_an_end_token_within_a_draft_when_assisted_then_the_text_ends_there(
    pair: Pair,
) -> None:
    answer = completed(pair.plain, [request("a", PROMPTS[2], max_tokens=12, logprobs=True)])["a"]
    requests = [
        request(str(n), PROMPTS[2], max_tokens=12, logprobs=1, stop_token_ids=[token])
        for n, token in enumerate(token_ids(answer)[0][:6])
    ]
    for plain, assisted in pair.both(requests):
        agree(plain, assisted)


def test_given_structures_when_assisted_then_texts_are_the_same(pair: Pair) -> None:
    regex = r"[a-z]{3,8} [0-9]{2,4}( one, two){2,4}"
    requests = [
        request("greedy", PROMPTS[1], max_tokens=30, logprobs=2, regex=regex),
        request("sampled", PROMPTS[1], max_tokens=30, temperature=1, seed=4, n=2, regex=regex),
        request("choice", PROMPTS[0], max_tokens=30, choice=["one, two, three", "the mill"]),
    ]
    for plain, assisted in pair.both(requests):
        agree(plain, assisted)


def test_given_prompts_up_to_the_context_limit_when_assisted_then_texts_are_the_same(
    pair: Pair, subject: tuple[Any, str], checkpoint: Checkpoint
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint(subject[0]))
    prompt = PROMPTS[2] * 10
    while len(tokenizer(prompt)["input_ids"]) > CONTEXT_LENGTH - 2:  # it leaves room for two
        prompt = prompt[:-1]
    params: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True, "logprobs": 1}
    requests = [
        request("full", prompt, **params),
        request("nearly", prompt[:-12], **params),
        request("max-length", PROMPTS[0], max_length=9, logprobs=1, ignore_eos=True),
    ]
    for plain, assisted in pair.both(requests):
        agree(plain, assisted)
        assert assisted.samples[0].finish_reason == "length"


def test_given_its_own_model_as_draft_when_assisted_then_nearly_every_token_is_right(
    pair: Pair,
) -> None:
    if pair.way != "itself":
        pytest.skip("only a model itself is always right")
    assert pair.tally.taken >= 0.97 * pair.tally.drafted
    assert pair.tally.tokens >= 2 * pair.tally.steps
