"""Numbers keep their digits in a rendered chat."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from db.exact_json import loads
from worker.engine.shared.chat_template import Chat, ChatTemplate
from worker.engine.shared.written_numbers import StandIns, json_text

digits = st.from_regex(
    r"-?(?:0|[1-9][0-9]{0,9})\.[0-9]{1,9}(?:[eE][+-]?[0-9]{1,3})?", fullmatch=True
)


@given(st.lists(digits, max_size=5))
def test_any_numbers_keep_their_digits_in_a_template(texts: list[str]) -> None:
    text = f"[{', '.join(texts)}]"
    assert json_text(loads(text)) == text


@pytest.mark.parametrize("text", ["1.10", "1e400", "-1e400", "1e-400", "-0", "5.00", "1E5"])
def test_number_keeps_its_digits_beside_its_neighbours(text: str) -> None:
    neighbours = "1.0999999999999999, 1.1, 11.10, 100000.0"
    value = f'{{"a": [{text}, {neighbours}], "b": "{text} 1.0999999999999999"}}'
    given = loads(value)
    numbers = StandIns("1.0999999999999999", given)
    assert numbers.restored(json.dumps(numbers.put(given))) == value


def test_values_without_such_numbers_are_untouched() -> None:
    value = {"a": [1.1, 2, "x"]}
    assert StandIns("", value).put(value) is value


TEMPLATE = (
    "{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "{% for m in messages %}{{ m.content }}{{ (m.tool_calls or []) | tojson }}{% endfor %}"
    "{{ limit }}{% if limit > 1 %}!{% endif %}"
)


def test_chat_template_writes_tools_and_calls_with_their_digits() -> None:
    tools = '[{"a": 1.10, "b": 123456789012345678901234567890}]'
    calls = '[{"arguments": {"x": 1e400, "y": -0}}]'
    chat = Chat(
        [{"role": "assistant", "content": "1.10 ", "tool_calls": loads(calls)}],
        loads(tools),
        {"limit": loads("2.50")},
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel()))
    tokenizer.chat_template = TEMPLATE
    assert ChatTemplate(tokenizer).render(chat) == f"{tools[1:-1]}1.10 {calls}2.50!"
