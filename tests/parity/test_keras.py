"""The engine keras against the default one, token for token in float32."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from tests.parity.test_parity import CHAT, FILTERS, PROMPTS, sampled
from tests.support.checkpoints import Checkpoint
from tests.support.collector import completed, request
from tests.support.tiny_models import Kind
from worker.engine.protocol import Completed, Engine, EngineConfig, Request
from worker.engine.registry import create

pytest.importorskip("keras_hub", exc_type=ImportError)

KINDS: list[Kind] = ["gpt2", "gemma3-tied"]


@dataclass(frozen=True)
class Pair:
    """Two engines on one checkpoint."""

    folder: str
    keras: Engine
    torch: Engine

    def answers(self, requests: list[Request]) -> list[tuple[str, Completed, Completed]]:
        """By request: its id, what keras made of it, and what the default engine did."""
        ours, theirs = completed(self.keras, requests), completed(self.torch, requests)
        return [(one.id, ours[one.id], theirs[one.id]) for one in requests]


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Iterator[Pair]:
    folder = str(checkpoint(request.param))
    config = EngineConfig(folder, "cpu", "float32")
    pair = Pair(folder, create("keras", config), create("transformers", config))
    pair.keras.start()
    pair.torch.start()
    yield pair
    pair.keras.close()
    pair.torch.close()


def token_ids(outcome: Completed) -> list[list[int]]:
    return [[one.token_id for one in sample.logprobs or ()] for sample in outcome.samples]


def greedy(**params: Any) -> list[Request]:
    given = {"max_tokens": 32, "logprobs": True, **params}
    return [request(str(n), prompt, **given) for n, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_given_many_prompts_at_once_when_greedy_then_tokens_equal_pytorchs(
    pair: Pair, penalty: float
) -> None:
    for name, ours, theirs in pair.answers(greedy(repetition_penalty=penalty)):
        assert token_ids(ours) == token_ids(theirs), PROMPTS[int(name)]
        assert ours.prompt_tokens == theirs.prompt_tokens
        assert ours.samples[0].text == theirs.samples[0].text
        assert ours.samples[0].finish_reason == theirs.samples[0].finish_reason


def test_given_a_text_up_to_the_models_limit_when_greedy_then_tokens_equal_pytorchs(
    pair: Pair,
) -> None:
    prompt = PROMPTS[-1] * 2  # some 170 tokens
    wanted = [request("long", prompt, max_tokens=999, ignore_eos=True, logprobs=True)]
    ((_, ours, theirs),) = pair.answers(wanted)
    assert token_ids(ours) == token_ids(theirs)
    assert ours.prompt_tokens + ours.samples[0].completion_tokens == 256


def test_given_seeds_and_filters_when_sampled_then_tokens_equal_pytorchs(pair: Pair) -> None:
    wanted = [sampled(n, logprobs=True, **filters) for n, filters in enumerate(FILTERS)]
    for name, ours, theirs in pair.answers(wanted):
        assert token_ids(ours) == token_ids(theirs), name
        assert len({sample.text for sample in ours.samples}) == 4


def test_given_a_seed_when_repeated_then_samples_are_the_same_whatever_shares_the_batch(
    pair: Pair,
) -> None:
    wanted = [sampled(n, **filters) for n, filters in enumerate(FILTERS)]
    alone = {one.id: completed(pair.keras, [one])[one.id] for one in wanted}
    mates = [
        request(f"mate-{n}", prompt, seed=n, temperature=1.3, max_tokens=5 + n)
        for n, prompt in enumerate(PROMPTS)
    ]
    together = completed(pair.keras, [*mates[:9], *wanted, *mates[9:]])
    for one in wanted:
        texts = [sample.text for sample in alone[one.id].samples]
        assert [sample.text for sample in together[one.id].samples] == texts


def test_given_logprobs_when_asked_then_they_equal_pytorchs(pair: Pair) -> None:
    ((_, ours, theirs),) = pair.answers([request("a", PROMPTS[0], logprobs=3)])
    for one, other in zip(
        ours.samples[0].logprobs or (), theirs.samples[0].logprobs or (), strict=True
    ):
        assert one.token == other.token
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert [token for token, _, _, _ in one.top] == [token for token, _, _, _ in other.top]
        values = [value for _, _, value, _ in other.top]
        assert [value for _, _, value, _ in one.top] == pytest.approx(values, abs=1e-3)


def test_given_a_chat_when_completed_then_its_text_is_pytorchs(pair: Pair) -> None:
    if "gemma3" not in pair.folder:
        pytest.skip("only the Gemma-shaped model has a chat template")
    ((_, ours, theirs),) = pair.answers([request("chat", CHAT, max_tokens=20)])
    assert ours == Completed(theirs.samples, theirs.prompt_tokens, ours.started_at)


#: Prints the tokens of every prompt, with PyTorch out of reach, and by what they were computed.
_WITHOUT_PYTORCH = """
import sys
sys.modules["torch"] = None
import orjson
from tests.support.collector import completed, request
from worker.engine.protocol import EngineConfig
from worker.engine.registry import create

prompts, folder = orjson.loads(sys.argv[1]), sys.argv[2]
engine = create("keras", EngineConfig(folder, "cpu", "float32"))
info = engine.start()
answers = completed(engine, [
    request(str(n), prompt, max_tokens=12, logprobs=True) for n, prompt in enumerate(prompts)
])
engine.close()
tokens = [[one.token_id for one in answers[str(n)].samples[0].logprobs]
          for n in range(len(prompts))]
print(orjson.dumps([info.engine_version, tokens]).decode())
"""


@pytest.mark.parametrize("framework", ["tensorflow", "jax"])
def test_given_a_framework_and_no_pytorch_when_greedy_then_tokens_equal_pytorchs(
    pair: Pair, framework: str
) -> None:
    pytest.importorskip(framework, exc_type=ImportError)
    # A few of like length: JAX compiles for seconds a shape.
    prompts = [prompt for prompt in PROMPTS if len(prompt) < 40][:4]
    arguments = [orjson.dumps(prompts).decode(), pair.folder]
    told = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PYTORCH, *arguments],
        env={**os.environ, "KERAS_BACKEND": framework},
        check=True,
        capture_output=True,
        text=True,
        timeout=150,
    )
    version, tokens = orjson.loads(told.stdout.splitlines()[-1])
    assert f" {framework} " in version
    wanted = [
        request(str(n), prompt, max_tokens=12, logprobs=True) for n, prompt in enumerate(prompts)
    ]
    theirs = completed(pair.torch, wanted)
    assert tokens == [token_ids(theirs[one.id])[0] for one in wanted]
