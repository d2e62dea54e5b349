"""What the engine keras refuses, and what it does when the model breaks under it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from db.errors import ModelLoadError, SettingsError
from tests.support.checkpoints import Checkpoint
from tests.support.collector import Collector, completed, outcomes, request
from tests.support.tiny_models import Kind
from worker.engine.kerashub.engine import KerasEngine
from worker.engine.protocol import Completed, EngineConfig, Failed

pytest.importorskip("keras_hub", exc_type=ImportError)

PROMPTS = [f"Hello, I'm a language model number {n}" for n in range(6)]

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99 bytes."


def started(folder: Path, device: str = "cpu", dtype: str = "float32") -> KerasEngine:
    engine = KerasEngine(EngineConfig(str(folder), device, dtype, max_concurrency=4))
    engine.start()
    return engine


@pytest.fixture(scope="module")
def gpt2(checkpoint: Checkpoint) -> Iterator[KerasEngine]:
    engine = started(checkpoint("gpt2"))
    yield engine
    engine.close()


@pytest.fixture
def engine(gpt2: KerasEngine, monkeypatch: pytest.MonkeyPatch) -> KerasEngine:
    """An engine at its first capacity, whose model `break_step` may break."""
    backend: Any = gpt2._running.backend
    monkeypatch.setattr(backend, "capacity", 4)
    return gpt2


def break_step(
    engine: KerasEngine,
    monkeypatch: pytest.MonkeyPatch,
    error_at: Callable[[int], Exception | None],
) -> None:
    """Let the model raise what `error_at(number of the step)` gives."""
    passes: Any = engine._running.backend._passes  # type: ignore[attr-defined]
    step, calls = passes.step, count()

    def breaking(*arguments: Any) -> Any:
        error = error_at(next(calls))
        if error is not None:
            raise error
        return step(*arguments)

    monkeypatch.setattr(passes, "step", breaking)


def requests() -> list[Any]:
    return [request(str(n), prompt) for n, prompt in enumerate(PROMPTS)]


def texts(engine: KerasEngine) -> dict[str, str]:
    return {name: one.samples[0].text for name, one in completed(engine, requests()).items()}


# --- what it refuses ------------------------------------------------------------------------


def refusal(folder: Path) -> str:
    with pytest.raises(ModelLoadError) as refused:
        started(folder)
    assert "\n" not in refused.value.message
    return refused.value.message


@pytest.mark.parametrize(
    ("kind", "named"),
    [("gemma3", "tie_word_embeddings"), ("mamba", "of type 'mamba'"), ("t5", "of type 't5'")],
)
def test_given_a_checkpoint_that_keras_hub_gets_wrong_when_loaded_then_it_says_why(
    checkpoint: Checkpoint, kind: Kind, named: str
) -> None:
    assert named in refusal(checkpoint(kind))


def test_given_a_type_that_keras_hub_does_not_know_when_insisting_then_it_says_so(
    checkpoint: Checkpoint,
) -> None:
    config = EngineConfig(str(checkpoint("mamba")), "cpu", options={"models": "any"})
    with pytest.raises(ModelLoadError, match=r"KerasHub has no converter.*mamba"):
        KerasEngine(config).start()


def test_given_weights_of_another_shape_when_loaded_then_it_says_so(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("gpt2"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 1}))
    assert "parameters, KerasHub made" in refusal(folder)
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    assert "can't be loaded" in refusal(folder)


def test_given_pickled_weights_when_loaded_then_they_are_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("gpt2"), folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickled weights" in refusal(folder)


def test_given_a_folder_that_is_not_there_when_loaded_then_it_says_so(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nothing")


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cuda:x", ""])
def test_given_a_device_that_is_not_there_when_loaded_then_it_is_named(
    checkpoint: Checkpoint, device: str
) -> None:
    with pytest.raises(SettingsError, match=f"device '{device}'"):
        started(checkpoint("gpt2"), device=device)


def test_given_a_dtype_that_is_none_when_loaded_then_it_is_named(checkpoint: Checkpoint) -> None:
    with pytest.raises(SettingsError, match="dtype 'int3'"):
        started(checkpoint("gpt2"), dtype="int3")


def test_given_the_checkpoints_dtype_or_another_when_loaded_then_the_model_has_it(
    checkpoint: Checkpoint,
) -> None:
    for wanted, expected in (("auto", "float32"), ("bfloat16", "bfloat16")):
        engine = KerasEngine(EngineConfig(str(checkpoint("gemma3-tied")), "auto", wanted))
        assert engine.start().dtype == expected
        assert completed(engine, [request("a", PROMPTS[0])])
        engine.close()


# --- when the model breaks ------------------------------------------------------------------


def test_given_memory_runs_out_when_running_then_it_shrinks_once_and_loses_nothing(
    engine: KerasEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = texts(engine)
    break_step(engine, monkeypatch, lambda call: RuntimeError(OUT_OF_MEMORY) if call == 3 else None)
    with caplog.at_level(logging.WARNING):
        assert texts(engine) == expected
    assert engine.stats().capacity == 2
    warnings = [one for one in caplog.records if getattr(one, "action", "") == "engine_shrink"]
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(MemoryError(), "out_of_memory"), (ValueError("strange shape"), "engine_error")],
)
def test_given_the_model_breaks_when_running_then_requests_fail_retriable_and_it_goes_on(
    engine: KerasEngine, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    expected = texts(engine)
    with monkeypatch.context() as patch:
        break_step(engine, patch, lambda _: error)
        for failed in outcomes(engine, requests()).values():
            assert isinstance(failed, Failed)
            assert (failed.code, failed.retriable) == (code, True)
    assert texts(engine) == expected


def test_given_logits_that_are_nan_when_running_then_the_request_fails_for_good(
    engine: KerasEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: Any = engine._running.backend._passes  # type: ignore[attr-defined]
    step = passes.step

    def spoilt(*arguments: Any) -> Any:
        logits, cache = step(*arguments)
        return np.full_like(logits, np.nan), cache

    with monkeypatch.context() as patch:
        patch.setattr(passes, "step", spoilt)
        failed = outcomes(engine, [request("a", PROMPTS[0])])["a"]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retriable) == ("not_finite", False)
    assert texts(engine)


def test_given_one_long_text_among_short_ones_when_running_then_the_batch_shrinks(
    engine: KerasEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: Any = engine._running.backend._passes  # type: ignore[attr-defined]
    rows: list[int] = []
    begun, submitted = Event(), Event()
    step = passes.step

    def watched(ids: Any, *arguments: Any) -> Any:
        begun.set()
        assert submitted.wait(60)
        rows.append(len(ids))
        return step(ids, *arguments)

    monkeypatch.setattr(passes, "step", watched)
    collector = Collector()
    short = request("short", PROMPTS[0], max_tokens=2, ignore_eos=True, n=3)
    long_one = request("long", PROMPTS[0], max_tokens=9, ignore_eos=True)
    engine.submit(request("first", PROMPTS[0], max_tokens=1), collector.on_done)
    assert begun.wait(60)
    engine.submit(short, collector.on_done)
    engine.submit(long_one, collector.on_done)
    submitted.set()  # so that the second batch has both
    long = collector.wait(3)["long"]
    assert rows == [1, 4, 4, *[1] * 7]
    alone = completed(engine, [request("alone", PROMPTS[0], max_tokens=9, ignore_eos=True)])
    assert isinstance(long, Completed)
    assert long.samples == alone["alone"].samples


def test_given_another_framework_when_one_runs_then_it_says_that_a_process_has_one(
    engine: KerasEngine, checkpoint: Checkpoint
) -> None:
    import keras

    running = keras.config.backend()
    (other,) = {"tensorflow", "jax"} - {running}
    pytest.importorskip(other, exc_type=ImportError)
    config = EngineConfig(str(checkpoint("gpt2")), "cpu", options={"backend": other})
    with pytest.raises(ModelLoadError, match=f"keras already runs with {running}"):
        KerasEngine(config).start()
