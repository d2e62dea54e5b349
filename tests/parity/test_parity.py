"""The engine against transformers' own `generate` and `pipeline`, token for token in float32."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers

from db.sampling import SamplingParams
from tests.support import decode_reference
from tests.support.checkpoints import Checkpoint
from tests.support.collector import completed, request
from tests.support.gpu import skip_without
from tests.support.tiny_models import Kind
from worker.engine.protocol import Completed, Engine, EngineConfig, Request
from worker.engine.registry import create
from worker.engine.transformers import paged, paged_attention, projections

KERNEL = "worker.engine.transformers.decode_kernel"

SENTENCE = "Hello, I'm a language model, and the quick brown fox counts one two three four "

#: 18 prompts of 1 to about 120 tokens, some sharing a beginning, in several languages.
PROMPTS = [
    "Hello, I'm a language model,",
    "The",
    "Der Müller mahlt das Korn, die Bäckerin",
    "def add(a, b): return",
    "Question: What is the capital of France? Answer:",
    "日本語 and émigré",
    *((SENTENCE * 4)[: 12 + 23 * n] for n in range(12)),
]

CHAT = [
    {"role": "user", "content": "Hello, what is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of the mill?"},
]


@dataclass(frozen=True)
class Subject:
    """An engine, and the plain transformers objects that it is compared with."""

    kind: Kind
    engine: Engine
    model: Any
    tokenizer: Any

    def generate(self, prompt: str, **options: Any) -> list[int]:
        """New tokens by `model.generate` alone, greedy, without padding."""
        inputs = self.tokenizer(prompt, return_tensors="pt")
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            output = self.model.generate(**inputs, do_sample=False, **options)[0].tolist()
        start = 1 if self.kind == "t5" else inputs["input_ids"].shape[1]
        return [int(token) for token in output[start:]]

    def pipeline(self) -> Any:
        return transformers.pipeline(
            "text-generation", model=self.model, tokenizer=self.tokenizer, device="cpu"
        )


@dataclass(frozen=True)
class Way:
    """How an engine runs a model."""

    name: str
    kind: Kind
    options: dict[str, str]
    max_batch_tokens: int | None = None
    #: Vocabularies from this size on are projected in pieces; None: the default.
    pieces_from: int | None = None
    device: str = "cpu"
    #: On a CPU: the attention of a GPU, with a plain stand-in for its one kernel.
    stand_in: bool = False


WAYS = [
    Way("gpt2", "gpt2", {"batching": "continuous"}),
    Way("gemma3", "gemma3", {"batching": "continuous"}),
    # Long prompts are read in pieces, each after a part of its own past.
    Way("gpt2-chunked", "gpt2", {"batching": "continuous"}, max_batch_tokens=24),
    Way("gemma3-chunked", "gemma3", {"batching": "continuous"}, max_batch_tokens=24),
    Way("gemma3-head-in-pieces", "gemma3", {"batching": "continuous"}, pieces_from=1),
    Way("gemma3-sdpa", "gemma3", {"batching": "continuous", "attention": "sdpa"}),
    Way("gpt2-static", "gpt2", {"batching": "static"}),
    Way("gemma3-static", "gemma3", {"batching": "static"}),
    Way("gpt2-tables", "gpt2", {"batching": "continuous"}, stand_in=True),
    Way("gemma3-tables", "gemma3", {"batching": "continuous"}, 24, stand_in=True),
    Way("gpt2-cuda", "gpt2", {"batching": "continuous"}, device="cuda"),
    Way("gemma3-cuda", "gemma3", {"batching": "continuous"}, device="cuda"),
    Way("gemma3-cuda-chunked", "gemma3", {"batching": "continuous"}, 24, device="cuda"),
    Way("mamba", "mamba", {}),
    Way("t5", "t5", {}),
]


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way.name)
def subject(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Iterator[Subject]:
    way: Way = request.param
    skip_without(way.device)
    folder = str(checkpoint(way.kind))
    config = EngineConfig(
        folder, way.device, "float32", max_batch_tokens=way.max_batch_tokens, options=way.options
    )
    engine = create("transformers", config)
    with pytest.MonkeyPatch.context() as patch:
        if way.pieces_from is not None:
            patch.setattr(projections, "LARGE", way.pieces_from)
        if way.stand_in:
            patch.setattr(paged, "own_attention", lambda _: paged_attention.NAME)
            patch.setitem(sys.modules, KERNEL, decode_reference)
        engine.start()
        yield _subject(way, engine, folder)
    engine.close()


def _subject(way: Way, engine: Engine, folder: str) -> Subject:
    loader = (
        transformers.AutoModelForSeq2SeqLM
        if way.kind == "t5"
        else transformers.AutoModelForCausalLM
    )
    # On a CPU in any case: on a GPU `generate` itself gives another text for one of the prompts.
    model = loader.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return Subject(way.kind, engine, model, tokenizer)


def token_ids(outcome: Completed) -> list[int]:
    logprobs = outcome.samples[0].logprobs
    assert logprobs is not None
    return [one.token_id for one in logprobs]


def test_given_many_prompts_at_once_when_greedy_then_tokens_equal_generate(
    subject: Subject,
) -> None:
    answers = completed(
        subject.engine,
        [request(str(n), prompt, max_tokens=32, logprobs=True) for n, prompt in enumerate(PROMPTS)],
    )
    for n, prompt in enumerate(PROMPTS):
        assert token_ids(answers[str(n)]) == subject.generate(prompt, max_new_tokens=32), prompt


def test_given_a_repetition_penalty_when_greedy_then_tokens_equal_generate(
    subject: Subject,
) -> None:
    params: dict[str, Any] = {"max_tokens": 24, "logprobs": True, "repetition_penalty": 1.7}
    answers = completed(
        subject.engine, [request(str(n), prompt, **params) for n, prompt in enumerate(PROMPTS)]
    )
    for n, prompt in enumerate(PROMPTS):
        expected = subject.generate(prompt, max_new_tokens=24, repetition_penalty=1.7)
        assert token_ids(answers[str(n)]) == expected, prompt


def test_given_max_length_when_completed_then_text_equals_the_pipeline(subject: Subject) -> None:
    if subject.kind == "t5":
        pytest.skip("the text-generation pipeline takes no encoder-decoder")
    pipeline = subject.pipeline()
    prompts = [prompt for prompt in PROMPTS if len(subject.tokenizer(prompt)["input_ids"]) < 30]
    answers = completed(
        subject.engine,
        [request(str(n), prompt, max_length=30, echo=True) for n, prompt in enumerate(prompts)],
    )
    for n, prompt in enumerate(prompts):
        expected = pipeline(prompt, max_length=30, max_new_tokens=None, do_sample=False)
        assert answers[str(n)].samples[0].text == expected[0]["generated_text"]


def test_given_a_chat_when_completed_then_text_equals_the_pipeline(subject: Subject) -> None:
    if subject.kind != "gemma3":
        pytest.skip("only the Gemma-shaped model has a chat template")
    expected = subject.pipeline()(CHAT, max_new_tokens=20, do_sample=False)
    answer = completed(subject.engine, [request("chat", CHAT, max_tokens=20)])["chat"]
    assert answer.samples[0].text == expected[0]["generated_text"][-1]["content"]


def sampled(n: int, **params: Any) -> Request:
    defaults = {"temperature": 0.9, "n": 4, "max_tokens": 16}
    return request(f"sampled-{n}", PROMPTS[0], seed=1000 + n, **{**defaults, **params})


FILTERS: list[dict[str, Any]] = [
    {},
    {"top_k": 7},
    {"top_p": 0.8},
    {"top_k": 20, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2},
]


def test_given_a_seed_when_repeated_then_samples_are_the_same_whatever_shares_the_batch(
    subject: Subject,
) -> None:
    wanted = [sampled(n, **filters) for n, filters in enumerate(FILTERS)]
    alone = {one.id: completed(subject.engine, [one])[one.id] for one in wanted}
    mates = [
        request(f"mate-{n}", prompt, seed=n, temperature=1.3, max_tokens=5 + n)
        for n, prompt in enumerate(PROMPTS)
    ]
    together = completed(subject.engine, [*mates[:9], *wanted, *mates[9:]])
    for one in wanted:
        texts = [sample.text for sample in alone[one.id].samples]
        assert [sample.text for sample in together[one.id].samples] == texts
        assert len(set(texts)) == 4


def test_given_logprobs_when_greedy_then_they_are_the_models_own(subject: Subject) -> None:
    if subject.kind == "t5":
        pytest.skip("a decoder's logits are read from its prompt here")
    answer = completed(subject.engine, [request("a", PROMPTS[0], logprobs=3, max_tokens=6)])["a"]
    ids = subject.tokenizer(PROMPTS[0])["input_ids"]
    with torch.no_grad():
        logits = subject.model(torch.tensor([ids + token_ids(answer)])).logits[0].float()
    expected = logits.log_softmax(dim=-1)
    for at, one in enumerate(answer.samples[0].logprobs or ()):
        row = expected[len(ids) - 1 + at]
        assert one.logprob == pytest.approx(row[one.token_id].item(), abs=1e-3)
        assert [token for _, token, _, _ in one.top] == row.topk(3).indices.tolist()


def test_given_an_end_token_when_generated_then_the_sample_stops_there(subject: Subject) -> None:
    ids = subject.generate(PROMPTS[0], max_new_tokens=12)
    params = SamplingParams(temperature=0.0, max_tokens=12, stop_token_ids=(ids[3],))
    answer = completed(subject.engine, [Request("a", params, 0, PROMPTS[0])])["a"].samples[0]
    assert answer.completion_tokens == ids.index(ids[3]) + 1
    assert answer.finish_reason == "stop"
