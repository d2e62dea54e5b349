"""Thinking and calls of functions, asked of every engine that renders chats itself.

The models are parrots: they say, token for token, what a test wants to hear.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.collector import completed, outcomes, request
from tests.support.gpu import skip_without
from tests.support.parrots import CHAT, TIME, WEATHER, Style, build_parrot
from worker.engine.protocol import Engine, EngineConfig, Failed, Request, Sample
from worker.engine.registry import create

SORTS = ("continuous", "static", "assisted", "cuda", "keras", "vllm")

TOOLS = [WEATHER, TIME]

HARMONY = (
    "<|channel|>analysis<|message|>The mill.<|end|><|start|>assistant<|channel|>final"
    "<|message|>Paris."
)
CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'

#: Style -> what its model says to CHAT: a thought, then the answer.
SAYS: dict[Style, str] = {
    "r1": "The mill.\n</think>\n\nParis.",
    "qwen3": "<think>\nThe mill.\n</think>\n\nParis.",
    "harmony": HARMONY,
    "magistral": "[THINK]The mill.[/THINK]Paris.",
    "declared": "The mill.\n</draft>\n\nParis.",
}

Started = Callable[..., Engine]


def config(sort: str, folder: Path) -> EngineConfig:
    if sort == "vllm":
        options = {"kv_memory": "0.1", "enforce_eager": "on"}
        return EngineConfig(str(folder), dtype="float32", max_concurrency=4, options=options)
    options = {"batching": sort} if sort in ("continuous", "static") else {}
    if sort == "cuda":
        return EngineConfig(str(folder), "cuda", "float32", max_concurrency=4)
    if sort == "assisted":  # every draft is right
        options = {"assistant": str(folder)}
    return EngineConfig(str(folder), "cpu", "float32", max_concurrency=4, options=options)


@pytest.fixture(scope="module", params=SORTS)
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Started]:
    """(style, what it says, what else its prompt has) -> an engine with that parrot."""
    sort: str = request.param
    skip_without(sort)
    library = {"keras": "keras_hub", "vllm": "vllm"}.get(sort, "torch")
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed here")
    engines: dict[str, Engine] = {}

    def start(style: Style, says: str, **arguments: Any) -> Engine:
        name = f"{style} {says} {sorted(arguments)}"
        if name not in engines:
            folder = tmp_path_factory.mktemp("parrot")
            build_parrot(style, says, folder, **arguments)
            engine = create(
                sort if sort in ("keras", "vllm") else "transformers", config(sort, folder)
            )
            engine.start()
            engines[name] = engine
        return engines[name]

    yield start
    for engine in engines.values():
        engine.close()


def asked(request_id: str = "a", tools: list[Any] | None = None, **params: Any) -> Request:
    return replace(request(request_id, CHAT, **{"max_tokens": 60, **params}), tools=tools)


def sample(engine: Engine, wanted: Request) -> Sample:
    (one,) = completed(engine, [wanted])[wanted.id].samples
    return one


@pytest.mark.parametrize("style", SAYS)
def test_given_a_model_that_thinks_when_completed_then_its_thinking_is_apart(
    started: Started, style: Style
) -> None:
    engine = started(style, SAYS[style])
    one = sample(engine, asked(logprobs=True))
    assert (one.reasoning, one.text, one.finish_reason) == ("The mill.", "Paris.", "stop")
    assert one.tool_calls is None
    assert one.logprobs is not None
    assert len(one.logprobs) == one.completion_tokens  # the thinking's included


def test_thinking_is_apart_where_the_question_is_a_word_of_the_template(started: Started) -> None:
    chat = [{"role": "user", "content": "think"}]
    engine = started("r1", SAYS["r1"], messages=chat)
    one = sample(engine, replace(asked(), messages=chat))
    assert (one.reasoning, one.text) == ("The mill.", "Paris.")


def test_end_of_turn_that_the_config_lacks_ends_a_chat(started: Started) -> None:
    engine = started("qwen3", "Paris.", end_is_listed=False)
    one = sample(engine, asked())
    assert (one.text, one.finish_reason) == ("Paris.", "stop")
    chosen = sample(engine, asked("b", choice=["Paris.", "Paris. Or Lyon."]))
    assert (chosen.text, chosen.finish_reason) == ("Paris.", "stop")
    on = sample(engine, asked("c", ignore_eos=True))
    assert on.finish_reason == "length"


@pytest.mark.parametrize("style", SAYS)
def test_given_a_limit_within_the_thinking_when_reached_then_there_is_no_text(
    started: Started, style: Style
) -> None:
    engine = started(style, SAYS[style])
    tokens = 3 if style != "harmony" else 16  # a header comes first
    one = sample(engine, asked(max_tokens=tokens))
    assert (one.text, one.finish_reason, one.completion_tokens) == ("", "length", tokens)
    assert one.reasoning
    assert "The mill.".startswith(one.reasoning)


@pytest.mark.parametrize("style", SAYS)
def test_given_a_stop_string_when_it_is_in_both_then_only_the_answer_is_cut(
    started: Started, style: Style
) -> None:
    one = sample(started(style, SAYS[style]), asked(stop=["ill", "ris"]))
    assert (one.reasoning, one.text, one.finish_reason) == ("The mill.", "Pa", "stop")


@pytest.mark.parametrize("style", SAYS)
def test_given_a_structure_when_completed_then_it_begins_after_the_thinking(
    started: Started, style: Style
) -> None:
    engine = started(style, SAYS[style])
    answers = completed(
        engine,
        [
            asked("choice", choice=["yes", "no"]),
            asked("regex", regex=" [0-9]{3}"),
            asked("stop", choice=["yes", "no"], stop=["es", "o"], n=2),
        ],
    )
    for one in (one for answer in answers.values() for one in answer.samples):
        assert (one.reasoning, one.finish_reason) == ("The mill.", "stop")
    assert answers["choice"].samples[0].text in ("yes", "no")
    text = answers["regex"].samples[0].text
    assert text[0] == " "
    assert text[1:].isdigit()
    assert [one.text for one in answers["stop"].samples] in (["y", "y"], ["n", "n"])


def test_given_thinking_that_would_end_before_its_mark_when_guided_then_it_goes_on(
    started: Started,
) -> None:
    one = sample(started("r1", "The"), asked(choice=["yes", "no"], max_tokens=12))
    assert (one.text, one.finish_reason) == ("", "length")
    assert one.reasoning is not None


def test_given_echo_when_completed_then_the_thinking_is_not_between(started: Started) -> None:
    one = sample(started("r1", SAYS["r1"]), asked(echo=True))
    assert one.text.endswith("<|Assistant|><think>\nParis.")
    assert one.reasoning == "The mill."


def test_given_a_prompt_and_no_chat_when_completed_then_the_text_is_left_alone(
    started: Started,
) -> None:
    engine = started("qwen3", SAYS["qwen3"])
    tokens = completed(engine, [asked()])["a"].prompt_tokens
    # As many tokens as the chat has: the parrot then says the same.
    plain = request("plain", "mill " * 40, max_tokens=60)
    while (made := completed(engine, [replace(plain, prompt=plain.prompt)])["plain"]) and (
        made.prompt_tokens != tokens
    ):
        plain = replace(plain, prompt=(plain.prompt or "")[: -len("mill ")])
    (one,) = made.samples
    assert one.text == SAYS["qwen3"]
    assert one.reasoning is None


# --- calls ----------------------------------------------------------------------------------


def called(one: Sample) -> list[tuple[str, dict[str, Any]]]:
    functions = [call["function"] for call in one.tool_calls or ()]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


def test_given_calls_when_completed_then_they_are_taken_out_of_the_text(started: Started) -> None:
    says = f"<think>\nHm.\n</think>\n\nI look.\n<tool_call>\n{CALL}\n</tool_call>"
    engine = started("qwen3", says, tools=TOOLS)
    one = sample(engine, asked(tools=TOOLS, max_tokens=100))
    assert (one.reasoning, one.text, one.finish_reason) == ("Hm.", "I look.", "tool_calls")
    assert called(one) == [("weather", {"city": "Paris"})]
    cut = sample(engine, asked(tools=TOOLS, max_tokens=40))
    assert cut.tool_calls is None
    assert cut.text.startswith("I look.\n<tool_call>")
    assert cut.finish_reason == "length"


def test_given_marks_that_a_decoder_drops_when_completed_then_calls_are_found(
    started: Started,
) -> None:
    engine = started("magistral", f"[TOOL_CALLS] [{CALL}]", tools=TOOLS)
    one = sample(engine, asked(tools=TOOLS))
    assert (one.text, one.finish_reason) == ("", "tool_calls")
    assert called(one) == [("weather", {"city": "Paris"})]


def test_given_a_checkpoints_own_template_when_completed_then_it_says_what_is_a_call(
    started: Started,
) -> None:
    engine = started("declared", 'Hm.</draft>CALL {"name": "time", "arguments": {"zone": "UTC"}};')
    # Its prompt shows no tools, so the template is told of them and has no place for them.
    failed = outcomes(engine, [asked(tools=TOOLS)])["a"]
    assert isinstance(failed, Failed)
    one = sample(engine, asked())
    assert one.reasoning == "Hm."
    assert one.text.startswith("CALL")


@pytest.mark.parametrize("choice", ["required", "named"])
def test_given_a_choice_that_asks_for_a_call_when_completed_then_it_is_one(
    started: Started, choice: str
) -> None:
    engine = started("qwen3", "<think>\nHm.\n</think>\n\nParis.", tools=TOOLS)
    named = {"type": "function", "function": {"name": "time"}}
    one = sample(
        engine,
        asked(
            tools=TOOLS,
            max_tokens=400,
            tool_choice=named if choice == "named" else choice,
            parallel_tool_calls=False,
        ),
    )
    assert (one.reasoning, one.text, one.finish_reason) == ("Hm.", "", "tool_calls")
    ((name, arguments),) = called(one)
    assert name in (("time",) if choice == "named" else ("time", "weather"))
    assert ("zone" in arguments) == (name == "time")


def test_given_no_call_is_wanted_when_completed_then_the_template_shows_no_function(
    started: Started,
) -> None:
    engine = started("qwen3", f"<tool_call>\n{CALL}\n</tool_call>")
    one = sample(engine, asked(tools=TOOLS, tool_choice="none"))
    assert one.text == f"<tool_call>\n{CALL}\n</tool_call>"
    assert (one.tool_calls, one.finish_reason) == (None, "stop")


def test_given_a_form_of_calls_that_is_not_known_when_one_is_demanded_then_it_is_refused(
    started: Started,
) -> None:
    engine = started("harmony", HARMONY)
    failed = outcomes(engine, [asked(tools=TOOLS, tool_choice="required")])["a"]
    assert isinstance(failed, Failed)
    assert failed.code == "unsupported_parameter"
    assert failed.message.startswith("tool_choice")


def test_given_what_the_template_is_told_when_it_knows_it_then_it_is_rendered(
    started: Started,
) -> None:
    engine = started("qwen3", "Paris.", enable_thinking=False)
    one = sample(engine, asked(chat_template_kwargs={"enable_thinking": False}))
    assert (one.reasoning, one.text) == (None, "Paris.")
    chosen = sample(
        engine, asked(chat_template_kwargs={"enable_thinking": False}, choice=["yes", "no"])
    )
    assert chosen.text in ("yes", "no")
    failed = outcomes(engine, [asked(chat_template_kwargs={"enable_thinkin": False})])["a"]
    assert isinstance(failed, Failed)
    assert failed.code == "bad_chat"
    assert "enable_thinkin" in failed.message


def test_given_a_message_that_was_begun_when_asked_then_it_is_continued_or_a_new_one_begins(
    started: Started,
) -> None:
    begun = [*CHAT, {"role": "assistant", "content": "<think>\nThe"}]
    engine = started(
        "qwen3",
        " mill.\n</think>\n\nParis.",
        messages=begun,
        add_generation_prompt=False,
        continue_final_message=True,
    )
    wanted = replace(asked("on"), messages=begun)
    one = sample(engine, wanted)
    assert (one.reasoning, one.text) == ("mill.", "Paris.")
    new = replace(asked("new", add_generation_prompt=True), messages=begun)
    shut = replace(asked("shut", add_generation_prompt=False), messages=begun)
    tokens = {
        name: one.prompt_tokens for name, one in completed(engine, [wanted, new, shut]).items()
    }
    assert tokens["on"] < tokens["shut"] < tokens["new"]
