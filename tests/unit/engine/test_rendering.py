"""Chats through the templates of real families: where the answer begins, and that nothing is lost.

The contents are such as would mislead whoever looks for them in the rendered text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from db.modes import ScoreParams
from db.sampling import SamplingParams
from tests.support.template_families import OPENINGS, Family, families, family_tokenizer
from worker.engine.protocol import Failed, Request, ScoreRequest
from worker.engine.shared.chat_template import ChatTemplate
from worker.engine.shared.prompt import Prompt, Prompter
from worker.engine.shared.sentinels import sentinels
from worker.engine.shared.thinking import is_opened

#: Unix seconds of a moment on 31 January 2026, in UTC.
JANUARY = 1_769_860_800.0

ADVERSARIAL = (
    *("a", "user", "assistant", "\n", " ", "You", "A user asks.", "<|im_start|>", "<|im_end|>"),
    *("<think>", "</think>", "<|Assistant|><think>\n", "<start_of_turn>model\n", "[/INST]"),
    *("<|start|>assistant", "{{ messages }}", next(sentinels()), "x" * 5_000),
)

CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Rain or shine.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Which city."}},
            "required": ["city"],
        },
    },
}


def user(content: Any, **keys: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **keys}


def assistant(content: Any = None, **keys: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **keys}
    return {key: value for key, value in message.items() if value is not None}


RESULT = {"role": "tool", "content": "Rain.", "tool_call_id": "abcdefghi"}


@pytest.fixture(scope="module")
def prompters() -> Mapping[Family, Prompter]:
    return {family: Prompter(family_tokenizer(family)) for family in families()}


def asked(
    prompter: Prompter,
    messages: Sequence[Mapping[str, Any]],
    tools: list[Any] | None = None,
    clock: float | None = JANUARY,
    **params: Any,
) -> Prompt | Failed:
    request = Request("a", SamplingParams(**params), 0, messages=messages, tools=tools, clock=clock)
    return prompter.prompt(request)


def rendered(prompter: Prompter, *arguments: Any, **params: Any) -> Prompt:
    prompt = asked(prompter, *arguments, **params)
    assert isinstance(prompt, Prompt), prompt
    return prompt


def refused(prompter: Prompter, *arguments: Any, **params: Any) -> Failed:
    failed = asked(prompter, *arguments, **params)
    assert isinstance(failed, Failed)
    return failed


def of_template(template: str) -> Prompter:
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template = template
    return Prompter(tokenizer)


# --- where the answer begins ----------------------------------------------------------------


@pytest.mark.parametrize("family", families())
def test_content_never_moves_where_the_answer_begins(
    family: Family, prompters: Mapping[Family, Prompter]
) -> None:
    prompter = prompters[family]
    matters = prompter.reader.marks is not None
    for content in ADVERSARIAL:
        for messages in (
            [user(content)],
            [user("Hello."), assistant("Well."), user(content)],
            [{"role": "system", "content": content}, user("Hello.")],
        ):
            prompt = rendered(prompter, messages)
            assert prompt.text.endswith(OPENINGS[family]), content
            assert prompt.opening is not None
            assert OPENINGS[family].endswith(prompt.opening.text), content
            assert bool(prompt.opening.text) is matters


@pytest.mark.parametrize("content", ADVERSARIAL)
@pytest.mark.parametrize(("thinking", "opened"), [(True, True), (False, False)])
def test_switched_off_thinking_is_off_whatever_the_content(
    content: str, thinking: bool, opened: bool
) -> None:
    prompter = of_template(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n"
        "{% if enable_thinking is false %}\n</think>\n\n{% endif %}{% endif %}"
    )
    params: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": thinking}}
    prompt = rendered(prompter, [user(content)], **params)
    assert prompt.opening is not None
    assert prompter.reader.marks is not None
    assert is_opened(prompter.reader.marks, prompt.opening.text, continued=False) is opened
    guided = Request("a", SamplingParams(choice=("yes",), **params), 0, messages=[user(content)])
    assert (prompter.phases(guided, prompt) is not None) is opened


def test_opening_of_a_template_without_a_switch_is_found() -> None:
    """It begins the answer's turn whether it is asked to or not."""
    prompter = of_template(
        "{% for m in messages %}{{ m.content }}{% endfor %}<bot><think>{# </think> #}"
    )
    prompt = rendered(prompter, [user("<bot><think>")])
    assert prompt.opening is not None
    assert prompt.opening.text == "<bot><think>"


def test_function_that_speaks_of_thinking_opens_none(
    prompters: Mapping[Family, Prompter],
) -> None:
    function = {**TOOL["function"], "description": "<think>"}  # type: ignore[dict-item]
    prompt = rendered(prompters["qwen3"], [user("Hi.")], [{**TOOL, "function": function}])
    assert prompt.opening is not None
    assert "<think>" not in prompt.opening.text


def test_user_who_names_a_mark_of_plain_words_asks_for_no_thinking() -> None:
    template = (
        "{% if thinking %}Write 'Here is my thought process:' and 'Here is my response:'{% endif %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    prompter = of_template(template)
    messages = [user("Here is my thought process:")]
    request = Request("a", SamplingParams(choice=("yes",)), 0, messages=messages)
    assert prompter.phases(request, rendered(prompter, messages)) is None
    params = SamplingParams(choice=("yes",), chat_template_kwargs={"thinking": True})
    thinking = Request("a", params, 0, messages=messages)
    prompt = prompter.prompt(thinking)
    assert isinstance(prompt, Prompt)
    assert prompter.phases(thinking, prompt) is not None


# --- a message that is continued ------------------------------------------------------------


@pytest.mark.parametrize("family", families())
@pytest.mark.parametrize("content", ["", "Paris", "user", "Paris "])
def test_continued_message_ends_with_its_content(
    family: Family, content: str, prompters: Mapping[Family, Prompter]
) -> None:
    messages = [user("assistant"), assistant(content)]
    prompt = rendered(prompters[family], messages)
    trims = family in ("llama3", "gemma")
    without = rendered(prompters[family], [user("assistant"), assistant("#")]).text
    assert prompt.text == without.removesuffix("#") + (content.rstrip() if trims else content)
    assert prompt.opening is not None
    assert (prompt.opening.continued, prompt.opening.text) == (True, content)


def test_empty_message_that_the_template_skips_is_still_begun() -> None:
    prompter = of_template(
        "{% for m in messages %}{% if m.content %}<{{ m.role }}>{{ m.content }}</s>{% endif %}"
        "{% endfor %}"
    )
    assert rendered(prompter, [user("Hi"), assistant("")]).text == "<user>Hi</s><assistant>"


def test_last_message_without_content_is_not_continued() -> None:
    failed = refused(of_template("{{ messages }}"), [user("Hi"), assistant(tool_calls=[CALL])])
    assert failed.code == "bad_chat"
    assert "has no content to continue" in failed.message


# --- nothing is lost ------------------------------------------------------------------------


def texts(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """All that the messages say."""
    said = [
        str(message[key])
        for message in messages
        for key in ("content", "name", "reasoning_content")
        if key in message
    ]
    calls = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
    return [*said, *(call["name"] for call in calls), *('"Paris"' for _ in calls)]


#: What of a chat is looked at -> its messages.
CHATS: dict[str, list[dict[str, Any]]] = {
    "system": [{"role": "system", "content": "SYSTEM"}, user("USER")],
    "developer": [{"role": "developer", "content": "DEVELOPER"}, user("USER")],
    "turns": [user("USER"), assistant("ASSISTANT"), user("LAST")],
    "two users": [user("USER"), user("LAST")],
    "name": [user("USER", name="NAME")],
    "calls": [user("USER"), assistant(tool_calls=[CALL]), RESULT],
    "content beside calls": [user("USER"), assistant("ASSISTANT", tool_calls=[CALL]), RESULT],
    "reasoning beside calls": [
        user("USER"), assistant(tool_calls=[CALL], reasoning_content="REASONING"), RESULT,
    ],
}  # fmt: skip


@pytest.mark.parametrize("family", families())
@pytest.mark.parametrize("chat", CHATS)
def test_every_text_is_in_the_prompt_or_is_named(
    family: Family, chat: str, prompters: Mapping[Family, Prompter]
) -> None:
    outcome = asked(prompters[family], CHATS[chat])
    if isinstance(outcome, Prompt):
        assert [text for text in texts(CHATS[chat]) if text not in outcome.text] == []
        return
    # What fails is named, or the template has said itself what it refuses.
    assert outcome.code in ("not_rendered", "bad_chat")
    if outcome.code == "not_rendered":
        assert re.search(r"messages\[\d\]\.\w+", outcome.message)


@pytest.mark.parametrize(
    ("family", "chat", "named"),
    [
        ("qwen3", "developer", "messages[0].content (role developer)"),
        ("deepseek-r1", "developer", "messages[0].content (role developer)"),
        ("chatml", "name", "messages[0].name (role user)"),
        ("chatml", "calls", "messages[1].tool_calls[0] (role assistant): leave it out"),
        ("llama3", "content beside calls", "messages[1].content (role assistant)"),
        ("llama3", "reasoning beside calls", "messages[1].reasoning_content (role assistant)"),
        ("deepseek-r1", "reasoning beside calls", "messages[1].reasoning_content"),
    ],
)
def test_omitted_text_is_named_with_what_to_do(
    family: Family, chat: str, named: str, prompters: Mapping[Family, Prompter]
) -> None:
    failed = refused(prompters[family], CHATS[chat])
    assert failed.code == "not_rendered"
    assert f"does not render {named}" in failed.message
    assert "use a model whose template does" in failed.message
    assert not failed.retriable


@pytest.mark.parametrize("family", families())
def test_tools_are_in_the_prompt_or_are_named(
    family: Family, prompters: Mapping[Family, Prompter]
) -> None:
    outcome = asked(prompters[family], [user("Hi.")], [TOOL])
    if family in ("chatml", "gemma", "deepseek-r1"):
        assert isinstance(outcome, Failed)
        assert outcome.code == "not_rendered"
        assert "does not render tools[0]: leave the tools out" in outcome.message
    else:
        assert isinstance(outcome, Prompt)
        for text in ("weather", "Rain or shine.", "city", "Which city."):
            assert text in outcome.text


def test_reasoning_of_an_earlier_turn_may_be_left_out(
    prompters: Mapping[Family, Prompter],
) -> None:
    chat = [user("One?"), assistant("Yes.", reasoning_content="REASONING"), user("Two?")]
    for family in ("qwen3", "deepseek-r1", "gpt-oss"):
        assert "REASONING" not in rendered(prompters[family], chat).text
    # A model that marks no reasoning has never seen any.
    assert "messages[1].reasoning_content" in refused(prompters["chatml"], chat).message


def test_reasoning_of_this_turn_is_rendered(prompters: Mapping[Family, Prompter]) -> None:
    chat = [user("One?"), assistant("Yes.", tool_calls=[CALL], reasoning_content="HM"), RESULT]
    assert "<think>\nHM\n</think>" in rendered(prompters["qwen3"], chat).text


def test_name_of_a_result_is_that_of_its_call(prompters: Mapping[Family, Prompter]) -> None:
    chat = [user("Rain?"), assistant(tool_calls=[CALL]), {**RESULT, "name": "weather"}]
    assert "Rain." in rendered(prompters["qwen3"], chat).text
    other = [*chat[:2], {**RESULT, "name": "barometer"}]
    assert "messages[2].name (role tool)" in refused(prompters["qwen3"], other).message


def test_many_omissions_are_counted() -> None:
    failed = refused(of_template("nothing"), [user("a"), assistant("b")] * 4 + [user("c")])
    assert "messages[2].content (role user) and 6 more" in failed.message


def test_blank_texts_leave_nothing_to_render() -> None:
    assert rendered(of_template("nothing"), [{"role": "system", "content": ""}, user("\n ")]).text


def test_template_that_is_particular_about_texts_is_tried_on_these() -> None:
    prompter = of_template(
        "{% for m in messages %}{% if not m.content.startswith('Q') %}"
        "{{ raise_exception('a question begins with Q') }}{% endif %}{{ m.content }}{% endfor %}"
    )
    assert rendered(prompter, [user("Q: 1?")]).text == "Q: 1?"
    assert refused(prompter, [user("1?")]).message.endswith("a question begins with Q")
    assert "messages[0].name" in refused(prompter, [user("Q: 1?", name="NAME")]).message


def test_template_that_raises_is_quoted() -> None:
    failed = refused(of_template("{{ raise_exception('no such thing') }}"), [user("Hi.")])
    assert (failed.code, failed.retriable) == ("bad_chat", False)
    assert failed.message == "the chat template refuses the messages: no such thing"


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{{ messages[7].role }}", "{% if %}"])
def test_broken_template_fails_the_job_by_name(template: str) -> None:
    assert refused(of_template(template), [user("Hi.")]).code == "bad_chat"


def test_shape_is_tried_once() -> None:
    prompter = of_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    calls = 0
    original = ChatTemplate.render

    def counted(template: ChatTemplate, *arguments: Any) -> str:
        nonlocal calls
        calls += 1
        return original(template, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChatTemplate, "render", counted)
        for number in range(10):
            rendered(prompter, [user(f"Number {number}.")])
    assert calls == 10 + 1


# --- in which form a template takes messages ------------------------------------------------

PARTS = [{"type": "text", "text": "one two"}, {"type": "text", "text": "three"}]


@pytest.mark.parametrize("family", families())
def test_parts_are_as_the_template_has_them_else_lines(
    family: Family, prompters: Mapping[Family, Prompter]
) -> None:
    text = rendered(prompters[family], [user(PARTS)]).text
    assert ("one twothree" if family == "gemma" else "one two\nthree") in text
    assert "'type'" not in text


def test_parts_of_one_role_only_are_taken_as_parts() -> None:
    prompter = of_template(
        "{% for m in messages %}{% if m.role == 'system' %}<{{ m.content }}>"
        "{% else %}{% for part in m.content %}[{{ part.text }}]{% endfor %}{% endif %}{% endfor %}"
    )
    chat = [{"role": "system", "content": PARTS}, user(PARTS)]
    assert rendered(prompter, chat).text == "<one two\nthree>[one two][three]"


def test_template_of_parts_alone_gets_a_text_as_one() -> None:
    prompter = of_template(
        "{% for m in messages %}{% for part in m.content if part.type == 'text' %}"
        "{{ part.text }};{% endfor %}{% endfor %}"
    )
    assert rendered(prompter, [user("Hi."), user(PARTS)]).text == "Hi.;one two;three;"
    assert rendered(prompter, [user("Hi."), assistant("Par")]).text == "Hi.;Par"


def test_last_part_of_a_message_is_continued(prompters: Mapping[Family, Prompter]) -> None:
    prompt = rendered(prompters["qwen3"], [user("Hi."), assistant(PARTS)])
    assert prompt.text.endswith("one two\nthree")


def test_arguments_are_json_where_the_template_wants_it(
    prompters: Mapping[Family, Prompter],
) -> None:
    as_text = {**CALL, "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
    chat = [user("Rain?"), assistant(tool_calls=[as_text]), RESULT]
    assert '```json\n{"city":"Paris"}\n```' in rendered(prompters["deepseek-r1"], chat).text
    assert '"arguments": {"city": "Paris"}' in rendered(prompters["qwen3"], chat).text
    printed = of_template(
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}({{ c.function.arguments }}){% endfor %}{% endfor %}"
    )
    assert 'weather({"city":"Paris"})' in rendered(printed, chat).text


def test_message_of_calls_alone_has_an_empty_content_where_one_must_be() -> None:
    prompter = of_template(
        "{% for m in messages %}{{ '<' + m.content + '>' }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name ~ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    )
    chat = [user("Rain?"), assistant(tool_calls=[CALL]), RESULT]
    assert rendered(prompter, chat).text == '<Rain?><>weather{"city": "Paris"}<Rain.>'


def test_template_for_tools_is_used_for_tools() -> None:
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    prompter = Prompter(_with_templates(default=plain, tool_use=plain + "{{ tools | tojson }}"))
    assert rendered(prompter, [user("Hi.")]).text == "Hi."
    assert "Rain or shine." in rendered(prompter, [user("Hi.")], [TOOL]).text


def _with_templates(**templates: str) -> Any:
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template = templates
    return tokenizer


# --- what a template may be told -------------------------------------------------------------


def test_variable_that_stands_in_the_template_as_text_only_is_unknown() -> None:
    prompter = of_template("thinking {% for m in messages %}{{ m.content }}{% endfor %}")
    failed = refused(prompter, [user("Hi.")], chat_template_kwargs={"thinking": True})
    assert failed.code == "bad_chat"
    assert "reads no variable 'thinking'" in failed.message


@pytest.mark.parametrize(
    ("family", "date"), [("llama3", "Today Date: 31 Jan 2026"), ("gpt-oss", "date: 2026-01-31")]
)
def test_date_in_a_prompt_is_of_the_requests_clock_in_utc(
    family: Family, date: str, prompters: Mapping[Family, Prompter], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [user("Which day is it?")]
    assert date in rendered(prompters[family], messages).text
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    assert date in rendered(prompters[family], messages).text
    scored = prompters[family].prompt(
        ScoreRequest("a", ScoreParams(), messages=messages, completion="x", clock=JANUARY)
    )
    assert isinstance(scored, Prompt)
    assert date in scored.text


def test_date_that_the_user_gives_wins(prompters: Mapping[Family, Prompter]) -> None:
    given = {"date_string": "1 May 1994"}
    text = rendered(prompters["llama3"], [user("Hi.")], chat_template_kwargs=given).text
    assert "Today Date: 1 May 1994" in text
