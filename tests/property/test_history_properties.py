"""Whatever OpenAI's client dumps of an answer is accepted as history, with all that it says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.reading.chat import check_messages

chat = pytest.importorskip("openai.types.chat")

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)

calls = st.builds(
    lambda name, arguments: {
        "id": "call_1",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    st.from_regex(r"[a-z]{1,5}", fullmatch=True),
    texts,
)

#: Answers as the API sends them; the client keeps what it does not know, too.
answers = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": texts, "refusal": st.none()},
    optional={
        "annotations": st.sampled_from([None, []]),
        "audio": st.none(),
        "function_call": st.none(),
        "tool_calls": st.none() | st.lists(calls, max_size=2),
        "reasoning_content": st.none() | texts,
        "reasoning": st.none(),
        "reasoning_details": st.sampled_from([None, []]),
    },
)


@given(answers, st.booleans(), st.booleans())
def test_dumped_answer_is_accepted_with_all_it_says(
    answer: dict[str, Any], exclude_none: bool, exclude_unset: bool
) -> None:
    message = chat.ChatCompletionMessage.model_validate(answer)
    dumped = message.model_dump(exclude_none=exclude_none, exclude_unset=exclude_unset)
    _, kept = check_messages([{"role": "user", "content": "a"}, dumped], 10_000)
    assert kept["content"] == answer["content"]
    assert kept.get("reasoning_content") == (answer.get("reasoning_content") or None)
    assert kept.get("tool_calls", []) == (answer.get("tool_calls") or [])
    assert set(kept) <= {"role", "content", "reasoning_content", "tool_calls"}
