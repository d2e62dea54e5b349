"""Parameters as any caller may give them: accepted and kept, or refused by name."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from db.assignments import parse_assignment
from db.errors import ParameterError
from db.sampling import ALIASES, SamplingParams, merge, normalise, parameter_names

LIMITS = ("max_tokens", "max_length")

VALID: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.integers(1, 10**9),
    "temperature": st.floats(0, 100),
    "top_p": st.floats(0.001, 1),
    "top_k": st.integers(-1, 10**6),
    "min_p": st.floats(0, 1),
    "n": st.integers(1, 128),
    "stop": st.lists(st.text(min_size=1, max_size=5), max_size=16),
    "stop_token_ids": st.lists(st.integers(0, 10**6), max_size=5),
    "seed": st.integers(0, 2**63 - 1),
    "logprobs": st.booleans() | st.integers(0, 20),
    "repetition_penalty": st.floats(0.001, 100),
    "ignore_eos": st.booleans(),
    "echo": st.booleans(),
}

params = st.fixed_dictionaries({}, optional=VALID)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(params)
def test_given_valid_parameters_when_normalised_then_they_survive_json_and_a_second_time(
    given_params: dict[str, Any],
) -> None:
    stored = normalise(given_params)
    assert set(stored) == set(given_params)
    assert normalise(json.loads(json.dumps(stored))) == stored
    assert merge({}, stored) == SamplingParams.model_validate(stored)


@given(params, params)
def test_given_defaults_and_overrides_when_merged_then_each_field_comes_from_the_nearest(
    defaults: dict[str, Any], overrides: dict[str, Any]
) -> None:
    merged = merge(normalise(defaults), normalise(overrides))
    nearest = SamplingParams.model_validate({**defaults, **overrides})
    assert merged == nearest


@given(
    st.dictionaries(st.sampled_from(LIMITS), st.integers(1, 99), max_size=1),
    st.dictionaries(st.sampled_from(LIMITS), st.integers(1, 99), max_size=1),
)
def test_given_any_limits_when_merged_then_at_most_one_stands_and_it_is_the_nearest(
    defaults: dict[str, int], overrides: dict[str, int]
) -> None:
    merged = merge(defaults, overrides)
    standing = {name: getattr(merged, name) for name in LIMITS if getattr(merged, name) is not None}
    assert standing == (overrides or defaults)


@given(st.dictionaries(st.sampled_from(parameter_names()) | st.text(max_size=12), json_values))
def test_given_any_json_when_normalised_then_it_is_kept_whole_or_refused_in_one_line(
    given_params: dict[str, Any],
) -> None:
    try:
        stored = normalise(given_params)
    except ParameterError as error:
        # What people typed may hold a line's end; our own words do not.
        own = error.message.replace("".join(sorted(given_params)), "")
        assert own
        return
    wanted = {ALIASES.get(name, name) for name, value in given_params.items() if value is not None}
    assert set(stored) == wanted


@given(params, st.integers(0, 10**6), st.none() | st.integers(1, 10**6))
def test_given_a_context_when_a_prompt_is_in_it_then_its_text_ends_inside(
    given_params: dict[str, Any], prompt: int, context: int | None
) -> None:
    limit = merge(given_params, {}).token_limit(prompt, context)
    assert context is None or prompt + limit <= context
    assert limit <= given_params.get("max_tokens", 128)


@given(st.sampled_from(sorted(VALID)), json_values)
def test_given_any_json_value_when_assigned_on_the_command_line_then_it_is_read_back(
    name: str, value: Any
) -> None:
    # As text: True is no 1 then.
    read_name, read_value = parse_assignment(f"{name}={json.dumps(value)}")
    assert (read_name, json.dumps(read_value)) == (name, json.dumps(value))
