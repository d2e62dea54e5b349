"""Calls of functions: reading them in each known form, and grammars that llguidance takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from db.structure import lark
from tests.support.parrots import TEMPLATES, TIME, WEATHER, parrot_tokenizer
from worker.engine.shared import tool_calls
from worker.engine.shared.tool_calls import (
    GRANITE,
    HERMES,
    LLAMA,
    MISTRAL,
    QWEN_CODER,
    Format,
    find,
    format_of,
    grammar,
    numbered,
)

TOOLS = [WEATHER, TIME]
PARIS = ("weather", '{"city": "Paris"}')

LLAMA_SAYS = (
    'Respond in the format {"name": function name, "parameters": dictionary of argument name '
    "and its value}. Do not use variables."
)


@pytest.mark.parametrize(
    ("template", "format_"),
    [
        (TEMPLATES["qwen3"], HERMES),
        (TEMPLATES["granite"], GRANITE),
        (TEMPLATES["magistral"], MISTRAL),
        (LLAMA_SAYS, LLAMA),
        ("<tool_call>\n<function=x>\n<parameter=y>\n</tool_call>", QWEN_CODER),
        ("<tool_call>{{ name }}<arg_key>{{ k }}</arg_key> arguments", None),
        ("[TOOL_CALLS]{{ name }}[ARGS]{{ arguments }}", None),
        (TEMPLATES["r1"], None),
    ],
)
def test_given_a_template_when_read_then_its_form_of_calls_is_known(
    template: str, format_: Format | None
) -> None:
    assert format_of(template) == format_


@pytest.mark.parametrize(
    ("format_", "text", "before", "calls"),
    [
        (
            HERMES,
            (
                'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n'
                '</tool_call>\n<tool_call>\n{"name": "time", "arguments": {"zone": "UTC"}}\n'
                "</tool_call>"
            ),
            "I look.",
            [PARIS, ("time", '{"zone": "UTC"}')],
        ),
        # A mark inside an argument ends nothing; no arguments are none.
        (
            HERMES,
            '<tool_call>{"name": "weather", "arguments": {"city": "</tool_call>"}}</tool_call>',
            "",
            [("weather", '{"city": "</tool_call>"}')],
        ),
        (HERMES, '<tool_call>{"name": "time"}</tool_call> Bye.', "Bye.", [("time", "{}")]),
        # Its end token came in place of the mark.
        (HERMES, '<tool_call>{"name": "time"}', "", [("time", "{}")]),
        (
            GRANITE,
            '<|tool_call|>[{"name": "weather", "arguments": {"city": "Paris"}}]',
            "",
            [PARIS],
        ),
        (
            MISTRAL,
            '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}, "id": "9charsxyz"}]',
            "",
            [PARIS],
        ),
        (LLAMA, '{"name": "weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
        (
            LLAMA,
            (
                '<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}; '
                '{"name": "time", "parameters": {}}'
            ),
            "",
            [PARIS, ("time", "{}")],
        ),
        (
            QWEN_CODER,
            (
                "<tool_call>\n<function=weather>\n<parameter=city>\n12\n</parameter>\n"
                "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>"
            ),
            "",
            [("weather", '{"city": "12", "days": 3}')],
        ),
    ],
)
def test_given_calls_when_read_then_they_and_the_text_beside_them_are_told(
    format_: Format, text: str, before: str, calls: list[tuple[str, str]]
) -> None:
    assert find(format_, text, TOOLS) == (before, calls)


def test_numbers_of_calls_keep_the_digits_that_were_generated() -> None:
    arguments = '{"price": 1.10, "far": 1e400, "id": 12345678901234567890123, "zero": -0}'
    hermes = f'<tool_call>{{"name": "time", "arguments": {arguments}}}</tool_call>'
    assert find(HERMES, hermes, TOOLS) == ("", [("time", arguments)])
    coder = (
        "<tool_call>\n<function=time>\n<parameter=price>\n1.10\n</parameter>\n</function>\n"
        "</tool_call>"
    )
    assert find(QWEN_CODER, coder, TOOLS) == ("", [("time", '{"price": 1.10}')])


@pytest.mark.parametrize(
    ("format_", "text"),
    [
        (HERMES, "Paris."),
        (HERMES, '<tool_call>{"name": "weather", "argu'),
        (HERMES, "<tool_call>weather(Paris)</tool_call>"),
        (HERMES, '<tool_call>{"arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "time"}</tool_call><tool_call>{"name": '),
        (HERMES, '<tool_call>{"name": "time", "arguments": [1]}</tool_call>'),
        (GRANITE, "<|tool_call|>[]"),
        (MISTRAL, '[TOOL_CALLS] [{"name": "time"}, 3]'),
        # An answer in JSON is no call, unless it names a function that is there.
        (LLAMA, '{"name": "Marie", "parameters": {}}'),
        (LLAMA, '{"capital": "Paris"}'),
        (LLAMA, ""),
        (QWEN_CODER, "<tool_call>\n<function=weather>\n<parameter=city>\nPar"),
    ],
)
def test_given_what_is_no_whole_call_when_read_then_the_text_is_left_alone(
    format_: Format, text: str
) -> None:
    assert find(format_, text, TOOLS) is None


def test_given_calls_when_numbered_then_a_repeat_has_the_same_ids_and_others_have_others() -> None:
    first = numbered([PARIS, PARIS], seed=7, index=0)
    assert first == numbered([PARIS, PARIS], seed=7, index=0)
    ids = [one["id"] for one in (*first, *numbered([PARIS], 7, 1), *numbered([PARIS], 8, 0))]
    assert len(set(ids)) == 4
    assert all(one.startswith("call_") for one in ids)
    assert first[0]["function"] == {"name": "weather", "arguments": '{"city": "Paris"}'}


# --- grammars -------------------------------------------------------------------------------

TOKENIZER = parrot_tokenizer("qwen3")


@pytest.fixture(scope="module")
def wrapped() -> LLTokenizer:
    return from_tokenizer(TOKENIZER, n_vocab=len(TOKENIZER))


def takes(
    wrapped: LLTokenizer, text: str, format_: Format, tools: list[dict[str, Any]], *, several: bool
) -> bool:
    """Whether the grammar has the text, and lets it end there."""
    source = grammar(format_, tools, TOKENIZER.get_added_vocab().get, several=several)
    matcher = LLMatcher(wrapped, lark(source), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    return matcher.try_consume_tokens(ids) == len(ids) and bool(matcher.is_accepting())


def call(format_: Format, name: str, arguments: dict[str, Any], count: int = 1) -> str:
    one = json.dumps({"name": name, format_.arguments: arguments})
    if format_.listed:
        return f"{format_.begin}{format_.space}[{', '.join([one] * count)}]{format_.end}"
    whole = f"{format_.begin}{format_.space}{one}{format_.space}{format_.end}"
    return ("; " if format_ == LLAMA else "\n").join([whole] * count)


@pytest.mark.parametrize("format_", [HERMES, GRANITE, MISTRAL, LLAMA], ids=lambda one: one.name)
def test_given_a_form_when_made_a_grammar_then_it_takes_calls_and_nothing_else(
    format_: Format, wrapped: LLTokenizer
) -> None:
    good = call(format_, "weather", {"city": "Paris"})
    assert takes(wrapped, good, format_, TOOLS, several=False)
    assert find(format_, good, TOOLS) == ("", [PARIS])
    two = call(format_, "time", {"zone": "UTC"}, 2)
    assert takes(wrapped, two, format_, TOOLS, several=True)
    assert not takes(wrapped, two, format_, TOOLS, several=False)
    assert not takes(wrapped, "Paris.", format_, TOOLS, several=True)
    for name, arguments in (("weather", {}), ("time", {"zone": "x"}), ("else", {"city": "Paris"})):
        assert not takes(wrapped, call(format_, name, arguments), format_, TOOLS, several=True)
    assert not takes(wrapped, good, format_, [TIME], several=True)


def test_given_strange_functions_when_made_a_grammar_then_it_takes_their_calls(
    wrapped: LLTokenizer,
) -> None:
    point = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    tools = [
        {"type": "function", "function": {"name": 'say "hi"\\'}},
        {
            "type": "function",
            "function": {
                "name": "draw",
                "parameters": {
                    "properties": {"at": {"$ref": "#/$defs/point"}},
                    "required": ["at"],
                    "$defs": {"point": point},
                },
            },
        },
    ]
    assert takes(wrapped, call(HERMES, 'say "hi"\\', {"any": 1}), HERMES, tools, several=True)
    assert takes(wrapped, call(HERMES, "draw", {"at": {"x": 1}}), HERMES, tools, several=True)
    assert not takes(wrapped, call(HERMES, "draw", {"at": {}}), HERMES, tools, several=True)


def test_given_a_form_when_its_marks_are_told_then_none_is_empty() -> None:
    for format_ in tool_calls.KNOWN:
        assert all(tool_calls.marks(format_))
