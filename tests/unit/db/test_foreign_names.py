"""Parameters of other systems: neutral values, translations, and no hint that misleads."""

from __future__ import annotations

from typing import Any

import pytest

from db.errors import ParameterError
from db.foreign_names import (
    FOREIGN_NAMES,
    advice,
    is_known_elsewhere,
    is_neutral,
    snake_case,
    translation,
)
from db.misspellings import near_miss
from db.modes import Mode
from db.sampling import ALIASES, SamplingParams, normalise, parameter_names

KNOWN = parameter_names()

#: As OpenAI's client dumps a request of which only the model and the messages were set.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "best_of": (None, 1),
    "frequency_penalty": (None, 0, 0.0),
    "function_call": (None, "none", "auto"),
    "functions": (None, []),
    "logit_bias": (None, {}, {"50256": 0}),
    "metadata": (None, {}, {"run": "7"}),
    "modalities": (None, ["text"]),
    "n": (None,),
    "prediction": (None,),
    "presence_penalty": (None, 0),
    "prompt_cache_key": (None, "k"),
    "reasoning_effort": (None,),
    "response_format": (None,),
    "safety_identifier": (None, "x"),
    "seed": (None,),
    "service_tier": (None, "auto", "default"),
    "store": (None, False),
    "stream": (None, False),
    "stream_options": (None, {}, {"include_usage": False}),
    "suffix": (None, ""),
    "user": (None, "alice"),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
    "min_tokens": (0,),
    "numBeams": (1,),
    "do_sample": (True,),
    "typical_p": (1.0,),
    "skip_special_tokens": (True,),
    "prompt_logprobs": (None,),
}


@pytest.mark.parametrize(("name", "values"), NEUTRAL.items())
def test_neutral_value_is_dropped(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        assert normalise({name: value}) == {}
        assert normalise({name: value, "max_tokens": 4}, {"top_p": 0.5}) == {"max_tokens": 4}
        if name not in SamplingParams.model_fields:
            assert normalise({name: value}, mode=Mode.EMBED) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frequency_penalty", 0.7),
        ("frequency_penalty", False),
        ("presence_penalty", "0"),
        ("logit_bias", {"5": -100}),
        ("logit_bias", {"5": False}),
        ("best_of", 4),
        ("audio", {}),
        ("web_search_options", {}),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("modalities", ["text", "audio"]),
        ("service_tier", "flex"),
        ("reasoning_effort", "low"),
        ("verbosity", "low"),
        ("stream", True),
        ("stream_options", {"include_usage": True}),
        ("store", True),
        ("suffix", "end"),
        ("min_tokens", 5),
        ("num_beams", 4),
        ("do_sample", False),
        ("dimensions", 256),
    ],
)
def test_value_that_asks_for_something_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ParameterError) as failure:
        normalise({name: value})
    message = failure.value.message
    assert message.startswith(f"parameter '{name}' is ")
    assert "did you mean" not in message


def test_sampling_is_refused_where_it_is_greedy() -> None:
    with pytest.raises(ParameterError, match="write temperature 0 to be greedy"):
        normalise({"do_sample": True}, {"temperature": 0})


def test_best_of_as_many_as_samples_is_neutral() -> None:
    assert normalise({"n": 3, "best_of": 3}) == {"n": 3}
    assert normalise({"best_of": 3}, {"n": 3}) == {}
    with pytest.raises(ParameterError, match="parameter 'best_of' is 5: ask for n samples"):
        normalise({"n": 3, "best_of": 5})


def test_value_that_is_no_json_is_not_neutral() -> None:
    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    assert not is_neutral("frequency_penalty", Array())
    assert not is_neutral("logit_bias", Array())


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("stop_sequences", "stop"),
        ("stopSequences", "stop"),
        ("maxOutputTokens", "max_tokens"),
        ("max_output_tokens", "max_tokens"),
        ("num_predict", "max_tokens"),
        ("n_predict", "max_tokens"),
        ("repeat_penalty", "repetition_penalty"),
        ("candidateCount", "n"),
        ("eos_token_id", "stop_token_ids"),
        ("guided_json", "response_format"),
        ("responseSchema", "response_format"),
        ("return_full_text", "echo"),
        ("enable_thinking", "chat_template_kwargs"),
        ("topP", "top_p"),
        ("topK", "top_k"),
        ("max-new-tokens", "max_new_tokens"),
        ("topLogprobs", "top_logprobs"),
    ],
)
def test_name_of_another_system_is_translated(name: str, own: str) -> None:
    with pytest.raises(ParameterError) as failure:
        normalise({name: 3})
    assert failure.value.message == f"unknown parameter '{name}': did you mean '{own}'?"


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("min_tokens", "max_tokens"),
        ("min_new_tokens", "max_new_tokens"),
        ("minnewtokens", "max_new_tokens"),
        ("min_length", "max_length"),
        ("stop_p", "top_p"),
        ("stop_sequences", "num_return_sequences"),
        ("top_tokens", "stop_token_ids"),
        ("length_penalty", "repetition_penalty"),
        ("presence_penalty", "repetition_penalty"),
        ("typical_p", "top_p"),
        ("step", "stop"),
        ("need", "seed"),
        ("min_score", "min_p"),
    ],
)
def test_name_of_another_meaning_is_never_offered(name: str, other: str) -> None:
    assert near_miss(name, [other]) is None
    assert translation(name) != other


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("temprature", "temperature"),
        ("tempreature", "temperature"),
        ("max_token", "max_tokens"),
        ("maxtokens", "max_tokens"),
        ("MAX_TOKENS", "max_tokens"),
        ("max_lenght", "max_length"),
        ("p_top", "top_p"),
        ("minp", "min_p"),
        ("repitition_penalty", "repetition_penalty"),
        ("stpo", "stop"),
        ("seeds", "seed"),
    ],
)
def test_misspelling_has_its_name_offered(name: str, own: str) -> None:
    assert near_miss(name, KNOWN) == own


def test_ordinary_word_may_be_a_column_of_data() -> None:
    for name in ("id", "text", "user", "metadata", "label", "category", "schema"):
        assert not is_known_elsewhere(name)
    for name in ("frequency_penalty", "frequencyPenalty", "min_tokens", "num_predict", "suffix"):
        assert is_known_elsewhere(name)


def test_table_of_foreign_names_has_no_name_of_ours() -> None:
    assert not set(FOREIGN_NAMES) & {*SamplingParams.model_fields, *ALIASES}
    assert all(snake_case(name) == name for name in FOREIGN_NAMES)
    assert all(bool(foreign.ours) != bool(foreign.advice) for foreign in FOREIGN_NAMES.values())


def test_endless_name_and_value_are_shown_short() -> None:
    assert near_miss("x" * 1_000_000, KNOWN) is None
    assert len(advice("suffix", "y" * 10_000) or "") < 200
