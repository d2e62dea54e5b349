"""Generation parameters: every range, every name, and nothing ignored."""

from __future__ import annotations

import re
from typing import Any

import pytest

from db.assignments import parse_assignment
from db.errors import ParameterError
from db.modes import EmbedParams, Mode, ScoreParams
from db.sampling import (
    ALIASES,
    DEFAULT_MAX_TOKENS,
    SamplingParams,
    merge,
    normalise,
    parameter_names,
)

NAN, INF = float("nan"), float("inf")

#: Field -> (values that are in range, values that are not).
RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "max_tokens": ([1, 10**6], [0, -1, 1.5, "1", True]),
    "max_length": ([1, 10**6], [0, -1, 1.5, "1", True]),
    "temperature": ([0, 0.7, 100], [-0.1, 100.5, NAN, INF, "hot", True]),
    "top_p": ([0.01, 1], [0, 1.1, NAN, "1"]),
    "top_k": ([-1, 0, 50], [-2, 1.5, True]),
    "min_p": ([0, 1], [-0.1, 1.1, NAN]),
    "n": ([1, 128], [0, 129, True, 2.5]),
    "stop": (["\n", ["a", "b"], ["x" * 1000], []], [[""], ["x" * 1001], ["a"] * 17, 3, [3]]),
    "stop_token_ids": ([[0, 5], []], [[-1], [1.5], ["1"], [True], 3, [1] * 257]),
    "seed": ([0, 2**63 - 1], [-1, 2**63, 1.5, True, "1"]),
    "logprobs": ([True, False, 0, 20], [-1, 21, "yes", 1.5]),
    "repetition_penalty": ([0.1, 1, 100], [0, -1, 101, NAN, INF]),
    "ignore_eos": ([True, False], [1, "true"]),
    "echo": ([True, False], [0, "false"]),
    "add_special_tokens": ([True, False], [0, "false"]),
    "response_format": (
        [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {}}}],
        ["json", [], 3],
    ),
    "regex": (["a+", "[0-9]{4}"], ["", 3]),
    "choice": ([["a"], ["a", "b"]], ["a", [""], [1], []]),
    "grammar": (['start: "a"', 'root ::= "a"'], ["", 1]),
    "top_logprobs": ([], [-1, 21, 1.5, True]),
    "retry_max_tokens": ([2, 10**6], [1, -1, 1.5, "200", True]),
    "retry_invalid": ([1, 10], [0, 11, 1.5, "1", True]),
    "tool_choice": (
        ["none", "auto", "required", {"type": "function", "function": {"name": "f"}}],
        ["always", "", 1, {}, {"type": "function"}, ["f"]],
    ),
    "parallel_tool_calls": ([True, False], [1, "true"]),
    "chat_template_kwargs": ([{"enable_thinking": False}, {}], ["x", [], 1]),
    "add_generation_prompt": ([True, False], [1, "true"]),
    "continue_final_message": ([True, False], [1, "true"]),
    "adapter": (["fin", "a.b-c_2", "7", "x" * 128], ["a b", "a/b", "ü", "x" * 129, 7, True, ["a"]]),
}


def test_given_the_table_of_ranges_when_compared_then_it_has_every_parameter() -> None:
    assert set(RANGES) == set(SamplingParams.model_fields)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (good, _) in RANGES.items() for value in good]
)
def test_given_a_value_in_range_when_normalised_then_only_it_is_returned(
    name: str, value: Any
) -> None:
    stored = [value] if name == "stop" and isinstance(value, str) else value
    assert normalise({name: value}) == {name: stored}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, bad) in RANGES.items() for value in bad]
)
def test_given_a_value_out_of_range_when_normalised_then_the_error_names_the_parameter(
    name: str, value: Any
) -> None:
    with pytest.raises(ParameterError) as failure:
        normalise({name: value})
    assert failure.value.message.startswith(f"parameter '{name}'")
    assert "\n" not in failure.value.message
    assert len(failure.value.message) < 200


def test_given_top_logprobs_when_normalised_then_it_needs_logprobs() -> None:
    assert normalise({"logprobs": True, "top_logprobs": 20})["top_logprobs"] == 20
    assert normalise({"top_logprobs": 5}, {"logprobs": True}) == {"top_logprobs": 5}
    with pytest.raises(ParameterError, match="top_logprobs needs logprobs"):
        normalise({"top_logprobs": 5})


@pytest.mark.parametrize(("alias", "own"), ALIASES.items())
def test_given_an_alias_when_normalised_then_it_is_stored_under_our_name(
    alias: str, own: str
) -> None:
    assert normalise({alias: 3}) == {own: 3}
    assert normalise({own: 3, alias: 3}) == {own: 3}
    with pytest.raises(ParameterError, match=f"'{alias}' is given twice, with different values"):
        normalise({own: 3, alias: 4})


def test_given_the_names_when_listed_then_aliases_are_among_them() -> None:
    assert parameter_names() == sorted({*SamplingParams.model_fields, *ALIASES})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("temprature", "temperature"),
        ("max_token", "max_tokens"),
        ("topp", "top_p"),
        ("max_new_token", "max_new_tokens"),
        ("stop_tokens_ids", "stop_token_ids"),
    ],
)
def test_given_an_unknown_name_when_normalised_then_the_nearest_is_offered(
    name: str, nearest: str
) -> None:
    with pytest.raises(ParameterError) as failure:
        normalise({name: None})
    assert failure.value.message == f"unknown parameter '{name}': did you mean '{nearest}'?"


def test_given_a_name_like_no_other_when_normalised_then_all_names_are_listed() -> None:
    with pytest.raises(ParameterError) as failure:
        normalise({"xyzzy": 1})
    for name in parameter_names():
        assert name in failure.value.message


def test_given_null_when_normalised_then_it_means_not_given() -> None:
    assert normalise({"temperature": None, "stop": None, "seed": None}) == {}
    assert normalise({"max_tokens": None, "max_new_tokens": 4}) == {"max_tokens": 4}
    assert merge({"temperature": 0.5}, normalise({"temperature": None})).temperature == 0.5


@pytest.mark.parametrize(
    ("defaults", "line", "said"),
    [
        (
            {"retry_max_tokens": 100},
            {},
            r"retry_max_tokens \(100\) is not above max_tokens \(128 where",
        ),
        ({"retry_max_tokens": 100}, {"max_tokens": 50}, None),
        ({"retry_max_tokens": 100}, {"max_tokens": 100}, "is not above"),
        ({"retry_max_tokens": 200}, {"max_length": 50}, "leave max_length out"),
        ({"retry_invalid": 2}, {}, "retry_invalid needs a structure"),
        ({"retry_invalid": 2}, {"response_format": {"type": "text"}}, "needs a structure"),
        ({"retry_invalid": 2}, {"choice": ["a", "b"]}, None),
        ({"retry_invalid": 2, "choice": ["a"]}, {"echo": True}, "retry_invalid or echo, not both"),
    ],
)
def test_given_second_tries_when_a_line_completes_them_then_what_is_in_force_must_fit(
    defaults: dict[str, Any], line: dict[str, Any], said: str | None
) -> None:
    """A batch's defaults alone need not: each of its lines may have a structure of its own."""
    assert normalise(defaults) == defaults
    if said is None:
        merge(defaults, normalise(line, defaults))
        return
    with pytest.raises(ParameterError, match=said):
        merge(defaults, line)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": ".{0,3000}"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "items": [{"type": "string"}]},
    ],
)
def test_given_a_schema_that_can_not_be_checked_when_second_tries_need_it_then_it_is_refused(
    schema: dict[str, Any],
) -> None:
    given = {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
    normalise(given)
    with pytest.raises(ParameterError, match="retry_invalid: "):
        normalise({**given, "retry_invalid": 1})


def test_given_both_limits_in_one_place_when_normalised_then_that_is_refused() -> None:
    with pytest.raises(ParameterError, match="give max_tokens or max_length, not both"):
        normalise({"max_tokens": 3, "max_length": 9})


@pytest.mark.parametrize(
    ("defaults", "line", "limits"),
    [
        ({"max_length": 30}, {"max_tokens": 5}, (5, None)),
        ({"max_tokens": 5}, {"max_length": 30}, (None, 30)),
        ({"max_tokens": 5}, {"max_tokens": 6}, (6, None)),
        ({"max_tokens": 5}, {"temperature": 0}, (5, None)),
        ({}, {}, (None, None)),
    ],
)
def test_given_a_batchs_limit_when_a_line_gives_one_then_the_lines_replaces_it(
    defaults: dict[str, Any], line: dict[str, Any], limits: tuple[int | None, int | None]
) -> None:
    assert normalise(line, defaults) == line
    merged = merge(defaults, line)
    assert (merged.max_tokens, merged.max_length) == limits


def test_given_overrides_when_merged_then_each_replaces_its_default_alone() -> None:
    merged = merge({"temperature": 0.2, "stop": ["a"], "n": 2}, {"stop": ["b", "c"]})
    assert (merged.temperature, merged.stop, merged.n) == (0.2, ("b", "c"), 2)


@pytest.mark.parametrize(
    ("params", "prompt", "context", "limit"),
    [
        ({}, 10, None, DEFAULT_MAX_TOKENS),
        ({"max_tokens": 7}, 10, None, 7),
        ({"max_tokens": 7}, 10, 12, 2),
        ({"max_length": 30}, 10, None, 20),
        ({"max_length": 30}, 10, 25, 15),
        ({"max_length": 30}, 40, None, -10),
        ({}, 100, 100, 0),
    ],
)
def test_given_limits_when_a_prompt_is_known_then_its_new_tokens_are(
    params: dict[str, Any], prompt: int, context: int | None, limit: int
) -> None:
    assert merge(params, {}).token_limit(prompt, context) == limit


@pytest.mark.parametrize(
    ("params", "wants", "alternatives"),
    [
        ({}, False, 0),
        ({"logprobs": False}, False, 0),
        ({"logprobs": True}, True, 0),
        ({"logprobs": 0}, True, 0),
        ({"logprobs": 5}, True, 5),
        ({"logprobs": True, "top_logprobs": 3}, True, 3),
        ({"logprobs": 5, "top_logprobs": 0}, True, 0),
    ],
)
def test_given_either_spelling_of_logprobs_when_read_then_both_mean_the_same(
    params: dict[str, Any], wants: bool, alternatives: int
) -> None:
    merged = merge(params, {})
    assert (merged.wants_logprobs, merged.alternatives) == (wants, alternatives)


def test_given_temperature_0_when_read_then_it_is_greedy() -> None:
    assert merge({"temperature": 0}, {}).greedy
    assert not merge({}, {}).greedy


def test_given_a_long_value_when_it_is_wrong_then_the_message_stays_short() -> None:
    with pytest.raises(ParameterError) as failure:
        normalise({"temperature": "x" * 10_000})
    assert len(failure.value.message) < 200


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("temperature=0.7", ("temperature", 0.7)),
        (" n =2", ("n", 2)),
        ("stop=END", ("stop", "END")),
        ("stop=a=b", ("stop", "a=b")),
        ('stop=["a", "b"]', ("stop", ["a", "b"])),
        ("echo=true", ("echo", True)),
        ("seed=null", ("seed", None)),
        ("stop=", ("stop", "")),
    ],
)
def test_given_an_assignment_when_parsed_then_the_value_is_json_where_it_is_json(
    text: str, pair: tuple[str, Any]
) -> None:
    assert parse_assignment(text) == pair


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("choice=a,b", """parameter 'choice' is a list: give -p 'choice=["a","b"]'"""),
        ("choice=good", """parameter 'choice' is a list: give -p 'choice=["good"]'"""),
        (
            "stop_token_ids=5,6",
            "parameter 'stop_token_ids' is a list: give -p 'stop_token_ids=[5,6]'",
        ),
        (
            "choice=[good,bad]",
            """is not valid JSON: put the texts in double quotes: -p 'choice=["good","bad"]'""",
        ),
        (
            "stop=['a', 'b']",
            """is not valid JSON: put the texts in double quotes: -p 'stop=["a","b"]'""",
        ),
    ],
)
def test_list_that_is_no_json_is_shown_as_json(text: str, message: str) -> None:
    with pytest.raises(ParameterError) as failure:
        parse_assignment(text)
    assert failure.value.message.removeprefix(f"'{text}' ") == message


def test_other_broken_json_says_where() -> None:
    with pytest.raises(ParameterError, match=r"response_format=\{' is not valid JSON: "):
        parse_assignment("response_format={")


@pytest.mark.parametrize("text", ["temperature", "", "=3", " =3"])
def test_given_no_assignment_when_parsed_then_the_error_shows_one(text: str) -> None:
    with pytest.raises(ParameterError) as failure:
        parse_assignment(text)
    assert failure.value.message == f"'{text}' is not key=value, as in temperature=0.7"


@pytest.mark.parametrize(
    ("mode", "given", "reason"),
    [
        (Mode.SCORE, {"logprobs": 21}, "parameter 'logprobs'"),
        (Mode.SCORE, {"temperature": 0}, "unknown parameter 'temperature' in mode score: known"),
        (Mode.SCORE, {"logprob": True}, "in mode score: did you mean 'logprobs'?"),
        (Mode.EMBED, {"pooling": "max"}, "parameter 'pooling': input should be 'mean', 'last' or"),
        (Mode.EMBED, {"normalize": 1}, "parameter 'normalize'"),
        (Mode.EMBED, {"precision": "int8"}, "parameter 'precision'"),
        (Mode.EMBED, {"max_new_tokens": 3}, "unknown parameter 'max_new_tokens' in mode embed"),
        (Mode.GENERATE, {"pooling": "mean"}, "unknown parameter 'pooling'"),
    ],
)
def test_given_another_mode_when_normalised_then_its_own_parameters_count(
    mode: Mode, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ParameterError) as failure:
        normalise(given, mode=mode)
    assert reason in failure.value.message


def test_given_defaults_of_a_mode_when_merged_then_the_line_wins() -> None:
    line = normalise({"pooling": "last"}, {"normalize": True}, Mode.EMBED)
    assert line == {"pooling": "last"}
    merged = merge({"normalize": True, "pooling": "first"}, line, Mode.EMBED)
    assert merged == EmbedParams(pooling="last", normalize=True)
    assert merge({}, {"logprobs": 0}, Mode.SCORE) == ScoreParams(logprobs=0)
    assert parameter_names(Mode.SCORE) == ["adapter", "add_special_tokens", "logprobs"]


STRUCTURES: list[tuple[dict[str, Any], str]] = [
    ({"response_format": {"type": "json"}}, "its type is one of text, json_object, json_schema"),
    ({"response_format": {"type": "json_schema"}}, "a json_schema has the form"),
    ({"regex": "[a"}, "the regular expression can't be followed"),
    ({"grammar": "start: b"}, "the grammar can't be followed"),
    ({"choice": []}, "at least 1 item"),
    ({"choice": "yes"}, "a list of strings"),
    ({"choice": ["a"], "regex": "b"}, "give one of response_format, regex, choice and grammar"),
]


@pytest.mark.parametrize(("given", "says"), STRUCTURES, ids=lambda one: str(one)[:30])
def test_given_a_structure_that_cant_be_followed_when_normalised_then_the_reason_is_told(
    given: dict[str, Any], says: str
) -> None:
    with pytest.raises(ParameterError, match=re.escape(says)):
        normalise(given)


def test_given_structures_when_normalised_then_they_stay_as_given() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "null"}}}
    for given in ({"response_format": schema}, {"choice": ["a", "b"]}, {"regex": "a+"}):
        assert normalise(given) == given
    assert SamplingParams(response_format={"type": "text"}).structure is None


@pytest.mark.parametrize("text", ["[0-9]{4}", '"a"', "1", "{x}"])
def test_given_a_pattern_on_the_command_line_when_parsed_then_it_is_text_as_it_stands(
    text: str,
) -> None:
    assert parse_assignment(f"regex={text}") == ("regex", text)
    assert parse_assignment(f"grammar={text}") == ("grammar", text)
