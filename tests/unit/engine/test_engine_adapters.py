"""LoRA adapters in engines: what is shared, what survives, and what is refused by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db.errors import ModelLoadError, SettingsError
from tests.support.checkpoints import Checkpoint
from tests.support.collector import completed, outcomes, request
from tests.support.measured import embedding_of, measured, score_of
from tests.support.tiny_adapters import build_adapter, build_adapters
from tests.unit.engine.test_recovery import OUT_OF_MEMORY, break_forward
from worker.engine.protocol import EngineConfig, Failed, Measurement
from worker.engine.registry import create
from worker.engine.shared.adapter_files import AdapterFiles
from worker.engine.transformers.engine import TransformersEngine
from worker.engine.vllm_engine import adapters as vllm

pytest.importorskip("peft")

#: Some pages of the cache.
PROMPT = "Hello, I'm a language model, and I run a mill that grinds prompts all day long. " * 2
NAMES = (None, "fin", "law")


@pytest.fixture(scope="module")
def adapters(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return build_adapters("llama", checkpoint("llama"), tmp_path_factory.mktemp("adapters"))


def started(checkpoint: Checkpoint, adapters: dict[str, str], **options: str) -> TransformersEngine:
    engine = TransformersEngine(
        EngineConfig(str(checkpoint("llama")), "cpu", "float32", adapters=adapters, options=options)
    )
    engine.start()
    return engine


@pytest.fixture(params=["continuous", "static"])
def engine(
    request: pytest.FixtureRequest, checkpoint: Checkpoint, adapters: dict[str, str]
) -> Iterator[TransformersEngine]:
    engine = started(checkpoint, adapters, batching=request.param)
    yield engine
    engine.close()


def asked(name: str | None, number: int = 0) -> Any:
    return request(f"{name}-{number}", PROMPT, adapter=name)


def text(engine: TransformersEngine, name: str | None, number: int = 0) -> str:
    return completed(engine, [asked(name, number)])[f"{name}-{number}"].samples[0].text


def test_given_one_prompt_under_several_adapters_when_cached_then_pages_are_shared_within_each(
    checkpoint: Checkpoint, adapters: dict[str, str]
) -> None:
    engine = started(checkpoint, adapters, batching="continuous")
    backend: Any = engine._running.backend
    cache = backend._manager.batch_processor.cache
    matched: list[int] = []
    search = cache.search_prefix_match

    def watched(*arguments: Any) -> int:
        matched.append(search(*arguments))
        return matched[-1]

    cache.search_prefix_match = watched
    first = [text(engine, name) for name in NAMES]
    assert matched == [0, 0, 0]
    again = [text(engine, name, 1) for name in NAMES]
    assert all(tokens >= 16 for tokens in matched[3:])
    assert again == first
    assert len(set(first)) == len(NAMES)
    engine.close()
    for name in reversed(NAMES):
        alone = started(checkpoint, adapters, batching="continuous")
        assert text(alone, name) == first[NAMES.index(name)]
        alone.close()


def test_given_memory_runs_out_when_running_then_adapters_are_kept(
    engine: TransformersEngine,
) -> None:
    expected = [text(engine, name) for name in NAMES]
    break_forward(engine, lambda call: RuntimeError(OUT_OF_MEMORY) if call == 2 else None)
    answers = completed(engine, [asked(name, 1) for name in NAMES])
    assert [answers[f"{name}-1"].samples[0].text for name in NAMES] == expected


def test_given_an_adapter_that_is_not_loaded_when_asked_for_then_it_fails_by_name(
    engine: TransformersEngine,
) -> None:
    wanted: list[Measurement] = [
        score_of("score", "one two", adapter="tax"),
        embedding_of("embed", "one", adapter="tax"),
    ]
    texts = outcomes(engine, [request("text", "one", adapter="tax")])
    answers = {**texts, **measured(engine, wanted)}
    assert len(answers) == 3
    for outcome in answers.values():
        assert isinstance(outcome, Failed)
        assert (outcome.code, outcome.retriable) == ("unknown_adapter", False)
        assert "no adapter 'tax' (loaded are fin, law)" in outcome.message
        assert "--adapter tax=PATH" in outcome.message


def test_given_adapters_when_started_then_each_is_told_by_a_digest_of_its_files(
    engine: TransformersEngine, adapters: dict[str, str]
) -> None:
    told = engine._running.admission.adapters
    assert isinstance(told, dict)
    assert list(told) == ["fin", "law"]
    for name, folder in adapters.items():
        said = os.popen(
            f"cd {folder} && sha256sum adapter_config.json adapter_model.safetensors | sha256sum"
        ).read()
        assert told[name] == said.split()[0]


def test_given_a_layer_that_is_computed_without_a_call_when_loaded_then_it_is_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = build_adapter(checkpoint("mamba"), tmp_path, r=2, target_modules=["dt_proj"])
    config = EngineConfig(str(checkpoint("mamba")), "cpu", adapters={"fin": str(folder)})
    with pytest.raises(ModelLoadError, match=r"dt_proj', which this model computes without"):
        create("transformers", config).start()


@pytest.mark.parametrize("kind", ["openai", "keras"])
def test_given_an_engine_that_can_load_none_when_made_with_some_then_it_is_refused(
    kind: str,
) -> None:
    with pytest.raises(SettingsError, match=rf"engine '{kind}' can't load adapters \(fin\)"):
        create(kind, EngineConfig("m", adapters={"fin": "x"}))


def test_given_the_echo_when_asked_for_an_adapter_then_it_knows_those_that_it_was_given() -> None:
    engine = create("echo", EngineConfig("m", adapters={"fin": "anywhere"}))
    info = engine.start()
    assert list(info.adapters) == ["fin"]
    found = outcomes(engine, [request("a", "one", adapter="fin"), request("b", "one", adapter="x")])
    engine.close()
    assert not isinstance(found["a"], Failed)
    assert isinstance(found["b"], Failed)
    assert "loaded are fin" in found["b"].message


def files(name: str = "fin", rank: int = 8, **fields: Any) -> AdapterFiles:
    given: dict[str, Any] = {"ranks": {}, "alphas": {}, "rooted": False, "base": None, **fields}
    return AdapterFiles(name, Path("x"), "0a", rank, 8.0, **given)


def test_given_adapters_when_vllm_is_told_then_it_has_room_for_the_largest() -> None:
    assert vllm.arguments([], "cuda") == {}
    both = [files(rank=4), files("law", rank=17)]
    found = vllm.arguments(both, "cuda")
    assert found == {"enable_lora": True, "max_loras": 2, "max_lora_rank": 32}
    # An empty place for those that have none.
    assert vllm.arguments(both, "cpu") == {**found, "max_loras": 3}
    assert vllm.lora_requests([]) == {None: None}


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (files(ranks={"q": 2}), "has rank_pattern or alpha_pattern, which vLLM passes over"),
        (files(alphas={"q": 2.0}), "has rank_pattern or alpha_pattern, which vLLM passes over"),
        (files(rank=513), "has rank 513, and vLLM takes 512 at most"),
    ],
)
def test_given_what_vllm_would_get_wrong_when_told_then_it_is_refused(
    one: AdapterFiles, reason: str
) -> None:
    with pytest.raises(ModelLoadError, match=reason):
        vllm.arguments([one], "cuda")
