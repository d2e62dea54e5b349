"""Seeds and parameters of a batch's jobs."""

from __future__ import annotations

import json
from typing import Any

from db.modes import Mode
from db.recipe import Recipes
from db.sampling import SamplingParams, merge, seed_of

UID = "bk3v9xq2h7mz"


def recipe(
    defaults: dict[str, Any], overrides: dict[str, Any] | None = None
) -> tuple[int | None, Any]:
    own = None if overrides is None else json.dumps(overrides)
    seed, params = Recipes(UID, json.dumps(defaults).encode()).of(5, own)
    return seed, None if params is None else json.loads(params)


def test_given_nothing_when_asked_then_every_default_is_told() -> None:
    seed, params = recipe({})
    assert seed == seed_of(UID, 5)
    unset = {"max_length", "seed", "top_logprobs"}
    unset |= {"response_format", "regex", "choice", "grammar", "adapter"}
    unset |= {"retry_max_tokens", "retry_invalid", "tool_choice", "parallel_tool_calls"}
    unset |= {"chat_template_kwargs", "add_generation_prompt", "continue_final_message"}
    unset |= {"add_special_tokens"}
    assert set(params) == set(SamplingParams.model_fields) - unset
    assert (params["max_tokens"], params["temperature"], params["stop"]) == (128, 1.0, [])


def test_given_a_line_of_its_own_when_asked_then_it_overrides_the_batch() -> None:
    seed, params = recipe({"max_length": 30, "top_k": 5, "seed": 1}, {"max_tokens": 8, "seed": 2})
    assert (seed, params["max_tokens"], params["top_k"]) == (2, 8, 5)
    assert "max_length" not in params
    assert recipe({"max_length": 30})[1]["max_length"] == 30
    assert "max_tokens" not in recipe({"max_length": 30})[1]
    assert recipe({"seed": 0})[0] == 0


def test_given_parameters_in_force_when_read_again_then_they_are_the_same_parameters() -> None:
    """What a replay generates with."""
    for given in ({}, {"stop": ["a", "b"], "logprobs": 3, "n": 2}, {"max_length": 9, "echo": True}):
        params = recipe(given)[1]
        again = SamplingParams.model_validate(params)
        assert again.token_limit(3, None) == merge({}, given).token_limit(3, None)
        wanted = merge({}, given).model_dump(exclude={"max_tokens", "seed"})
        assert again.model_dump(exclude={"max_tokens", "seed"}) == wanted


def test_given_parameters_that_are_none_when_asked_then_nothing_is_told() -> None:
    assert recipe({"temperature": -1}) == (None, None)


def test_given_lines_without_a_seed_when_asked_then_each_has_its_own() -> None:
    recipes = Recipes(UID, b"{}")
    assert [recipes.of(line, None)[0] for line in (1, 2)] == [seed_of(UID, 1), seed_of(UID, 2)]


def test_given_another_mode_when_asked_then_its_own_parameters_are_told_and_no_seed() -> None:
    scores = Recipes(UID, b"{}", Mode.SCORE)
    assert scores.of(1, '{"logprobs": 2}') == (None, '{"logprobs":2}')
    vectors = Recipes(UID, b'{"normalize": true}', Mode.EMBED)
    seed, params = vectors.of(1, '{"pooling": "last"}')
    assert seed is None
    assert json.loads(params or "") == {
        "pooling": "last",
        "normalize": True,
        "precision": "float32",
    }
    # The same defaults and overrides, of another kind.
    assert Recipes(UID, b"{}", Mode.EMBED).of(1, '{"logprobs": 2}') == (None, None)
