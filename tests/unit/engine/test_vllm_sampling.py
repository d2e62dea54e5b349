"""Parameters in vLLM's words and its outputs in ours; no vLLM is needed to tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from db.sampling import SamplingParams
from tests.support.collector import request
from worker.engine.protocol import TopLogprob
from worker.engine.shared.prompt import Prompt, Prompter
from worker.engine.vllm_engine import sampling
from worker.engine.vllm_engine.generating import Made


@dataclass(frozen=True)
class Logprob:
    """As vLLM's."""

    logprob: float
    rank: int


class Letters:
    """Token 0 is a, 1 is b, …"""

    def decode(self, token_ids: list[int], **_: Any) -> str:
        return "".join(chr(97 + one) for one in token_ids)


def made_of(token_ids: tuple[int, ...], logprobs: list[dict[int, Logprob]] | None = None) -> Made:
    return Made(list(token_ids), list(logprobs or ()), "stop")


PROMPTER = Prompter(Letters())
PROMPT = Prompt([1, 2], "Say: ")


def test_given_every_parameter_when_translated_then_none_is_lost() -> None:
    asked = request(
        "a",
        "x",
        temperature=0.7,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        repetition_penalty=1.2,
        stop=["END"],
        stop_token_ids=[7],
        ignore_eos=True,
        logprobs=3,
    )
    found = sampling.arguments(asked, limit=12, index=0)
    assert found.pop("seed") == sampling.sample_seed(0, 0)
    assert found == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "stop": ["END"],
        "stop_token_ids": [7],
        "ignore_eos": True,
        "max_tokens": 12,
        "logprobs": 3,
        "structured_outputs": None,
        "detokenize": True,
        "include_stop_str_in_output": True,
    }


def test_given_seeds_and_samples_when_mixed_then_each_has_its_own() -> None:
    seeds = {sampling.sample_seed(seed, index) for seed in range(50) for index in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= one < 2**63 for one in seeds)
    assert sampling.sample_seed(3, 1) == sampling.sample_seed(3, 1)


def test_given_a_temperature_that_vllm_does_not_take_when_asked_then_it_is_refused() -> None:
    refused = sampling.too_hot(SamplingParams(temperature=2.5))
    assert refused is not None
    assert refused.code == "unsupported_parameter"
    assert "2.5" in refused.message
    assert sampling.too_hot(SamplingParams(temperature=2.0)) is None


def test_given_two_stop_strings_in_one_output_when_cut_then_the_first_complete_one_counts() -> None:
    asked = request("a", "x", stop=["ef", "d"])
    made = sampling.sample(asked, 0, made_of((0, 1, 2, 3, 4, 5)), PROMPT, PROMPTER)
    assert made.text == "abc"
    assert made.completion_tokens == 6


def test_given_echo_when_made_then_the_prompt_comes_first() -> None:
    made = sampling.sample(request("a", "x", echo=True), 2, made_of((0,)), PROMPT, PROMPTER)
    assert (made.index, made.text, made.logprobs) == (2, "Say: a", None)


def test_given_logprobs_when_made_then_the_likeliest_come_first_and_no_more_than_asked() -> None:
    # The chosen token is the fourth likeliest; vLLM gives it besides the alternatives.
    place = {3: Logprob(-5.0, 4), 1: Logprob(-2.0, 2), 0: Logprob(-1.0, 1)}
    made = sampling.sample(
        request("a", "x", logprobs=2), 0, made_of((3,), logprobs=[place]), PROMPT, PROMPTER
    )
    assert made.logprobs is not None
    (one,) = made.logprobs
    assert (one.token, one.token_id, one.logprob) == ("d", 3, -5.0)
    assert one.top == (TopLogprob("a", 0, -1.0), TopLogprob("b", 1, -2.0))
