"""Which parameter works on which engine: one source for code and documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.sampling import SamplingParams
from worker.engine import parameters
from worker.engine.registry import engine_names

ENGINES_PAGE = Path(__file__).parents[3] / "docs" / "engines.md"


def test_given_the_page_when_compared_then_its_table_is_the_codes() -> None:
    assert parameters.table() in ENGINES_PAGE.read_text()


def test_given_every_engine_when_asked_then_its_parameters_are_told() -> None:
    assert sorted(parameters.SUPPORT) == engine_names()
    assert list(parameters.MODES) == list(parameters.SUPPORT)
    for support in parameters.SUPPORT.values():
        assert set(support) <= set(SamplingParams.model_fields)


def test_given_a_parameter_that_an_engine_lacks_when_asked_for_then_it_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(parameters.SUPPORT, "poor", {"max_tokens": parameters.YES})
    assert parameters.refusal("poor", SamplingParams(max_tokens=3)) is None
    refused = parameters.refusal("poor", SamplingParams(max_tokens=3, min_p=0.5))
    assert refused is not None
    assert refused.code == "unsupported_parameter"
    assert "min_p" in refused.message
    assert "transformers" in refused.message


def test_given_an_adapter_when_an_engine_loads_none_then_it_is_refused_by_name() -> None:
    for engine in ("keras", "openai"):
        refused = parameters.refusal(engine, SamplingParams(adapter="fin"))
        assert refused is not None
        assert "can't honour adapter" in refused.message
        assert "'transformers', 'vllm', 'echo'" in refused.message
