"""LoRA adapters, several and none in one batch, against PEFT's own, one at a time, in float32."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.parity.test_parity import FILTERS, KERNEL, PROMPTS, sampled
from tests.support import decode_reference
from tests.support.checkpoints import Checkpoint
from tests.support.collector import completed, request
from tests.support.matrix import of_matrix
from tests.support.measured import embedding_of, measured, score_of
from tests.support.tiny_adapters import build_adapters, merged, plain
from tests.support.tiny_models import Kind
from worker.engine.protocol import (
    Completed,
    Embedded,
    Engine,
    EngineConfig,
    Request,
    Scored,
)
from worker.engine.registry import create
from worker.engine.transformers import paged, paged_attention

peft = pytest.importorskip("peft")

#: Of each prompt its adapter: all neighbours differ.
NAMES = (None, "fin", "law")


@dataclass(frozen=True)
class Way:
    """How an engine runs a model."""

    name: str
    kind: Kind
    options: dict[str, str]
    max_batch_tokens: int | None = None
    device: str = "cpu"
    #: On a CPU: the attention of a GPU, with a plain stand-in for its one kernel.
    stand_in: bool = False

    @property
    def config(self) -> EngineConfig:
        return EngineConfig(
            "", self.device, "float32", max_batch_tokens=self.max_batch_tokens, options=self.options
        )


CONTINUOUS, STATIC = {"batching": "continuous"}, {"batching": "static"}

WAYS = [
    Way("gpt2", "gpt2", CONTINUOUS),
    Way("llama", "llama", CONTINUOUS),
    Way("gemma3", "gemma3", CONTINUOUS),
    # Long prompts are read in pieces, each after a part of its own past.
    Way("llama-chunked", "llama", CONTINUOUS, max_batch_tokens=24),
    Way("llama-sdpa", "llama", {**CONTINUOUS, "attention": "sdpa"}),
    Way("llama-tables", "llama", CONTINUOUS, stand_in=True),
    Way("llama-cuda", "llama", CONTINUOUS, device="cuda"),
    Way("gemma3-cuda", "gemma3", CONTINUOUS, device="cuda"),
    Way("gpt2-static", "gpt2", STATIC),
    Way("llama-static", "llama", STATIC),
    Way("gemma3-static", "gemma3", STATIC),
    Way("llama-lookup", "llama", {"prompt_lookup": "4"}, max_batch_tokens=24),
    Way("mamba", "mamba", {}),
    Way("t5", "t5", {}),
]


#: Those that `make test` runs.
FEW = ("gemma3", "llama-chunked", "llama-tables", "llama-cuda", "gpt2-static", "llama-lookup")


@dataclass(frozen=True)
class Subject:
    """An engine with two adapters; engines and models that have but one, in their weights."""

    kind: Kind
    engine: Engine
    #: By the adapter's name: PEFT's model, or the plain one.
    models: dict[str | None, Any]
    #: The same as engines, on merged weights.
    alone: dict[str | None, Engine]
    tokenizer: Any

    def generate(self, name: str | None, prompt: str, tokens: int) -> list[int]:
        inputs = self.tokenizer(prompt, return_tensors="pt")
        given = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        with torch.no_grad():
            output = self.models[name].generate(**given, do_sample=False, max_new_tokens=tokens)
        start = 1 if self.kind == "t5" else given["input_ids"].shape[1]
        return [int(token) for token in output[0].tolist()[start:]]


@pytest.fixture(scope="module", params=of_matrix(WAYS, *FEW), ids=lambda way: way.name)
def subject(
    request: pytest.FixtureRequest,
    checkpoint: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Subject]:
    way: Way = request.param
    if way.device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    folder, place = checkpoint(way.kind), tmp_path_factory.mktemp("adapters")
    adapters = build_adapters(way.kind, folder, place)
    folders: dict[str | None, Path] = {None: folder}
    models: dict[str | None, Any] = {None: plain(folder)}
    for name, adapter in adapters.items():
        folders[name] = merged(folder, adapter, place / f"{name}-merged")
        models[name] = peft.PeftModel.from_pretrained(plain(folder), adapter).eval()
    with pytest.MonkeyPatch.context() as patch:
        if way.stand_in:
            patch.setattr(paged, "own_attention", lambda _: paged_attention.NAME)
            patch.setitem(sys.modules, KERNEL, decode_reference)
        engine = create("transformers", replace(way.config, model=str(folder), adapters=adapters))
        engine.start()
        alone = {
            name: create("transformers", replace(way.config, model=str(path)))
            for name, path in folders.items()
        }
        for one in alone.values():
            one.start()
        yield Subject(
            way.kind, engine, models, alone, transformers.AutoTokenizer.from_pretrained(folder)
        )
        for one in (engine, *alone.values()):
            one.close()


def mixed(requests: list[Request]) -> list[Request]:
    """Each of them with the plain model and with each adapter, side by side."""
    return [
        replace(
            one,
            id=f"{one.id}/{name}",
            params=one.params.model_copy(update={"adapter": name}),
        )
        for one in requests
        for name in NAMES
    ]


def token_ids(outcome: Completed) -> list[list[int]]:
    return [[one.token_id for one in sample.logprobs or ()] for sample in outcome.samples]


def test_given_a_mixed_batch_when_greedy_then_tokens_equal_pefts(subject: Subject) -> None:
    wanted = mixed(
        [request(str(n), text, max_tokens=16, logprobs=True) for n, text in enumerate(PROMPTS)]
    )
    answers = completed(subject.engine, wanted)
    varied = 0
    for n, prompt in enumerate(PROMPTS):
        found = [token_ids(answers[f"{n}/{name}"])[0] for name in NAMES]
        assert found == [subject.generate(name, prompt, 16) for name in NAMES], prompt
        varied += len({tuple(tokens) for tokens in found}) == len(NAMES)
    assert varied > len(PROMPTS) / 2  # T5's greedy text sometimes stays as it was


def test_given_a_mixed_batch_when_sampled_then_tokens_equal_those_of_merged_weights(
    subject: Subject,
) -> None:
    plainly = [sampled(n, logprobs=True, **filters) for n, filters in enumerate(FILTERS)]
    answers = completed(subject.engine, mixed(plainly))
    for name in NAMES:
        expected = completed(subject.alone[name], plainly)
        for one in plainly:
            assert token_ids(answers[f"{one.id}/{name}"]) == token_ids(expected[one.id])


def test_given_a_mixed_batch_when_measured_then_numbers_equal_those_of_merged_weights(
    subject: Subject,
) -> None:
    def asked(name: str | None) -> list[Any]:
        scores = [
            score_of(f"{n}/{name}", text, " Paris and the mill", adapter=name)
            for n, text in enumerate(PROMPTS)
        ]
        vectors = [
            embedding_of(f"{n}/{name}/e", text, adapter=name) for n, text in enumerate(PROMPTS)
        ]
        return [*scores, *vectors]

    side_by_side = zip(*map(asked, NAMES), strict=True)
    answers = measured(subject.engine, [one for group in side_by_side for one in group])
    seen = set()
    for name in NAMES:
        wanted = [
            replace(one, params=one.params.model_copy(update={"adapter": None}))
            for one in asked(name)
        ]
        for key, expected in measured(subject.alone[name], wanted).items():
            found = answers[key]
            if isinstance(expected, Scored):
                assert isinstance(found, Scored)
                assert found.logprob == pytest.approx(expected.logprob, rel=1e-4, abs=1e-4)
                seen.add(round(found.logprob, 2))
            else:
                assert isinstance(found, Embedded)
                assert isinstance(expected, Embedded)
                assert list(found.vector) == pytest.approx(
                    list(expected.vector), rel=1e-3, abs=1e-3
                )
    assert len(seen) > 2 * len(PROMPTS)
