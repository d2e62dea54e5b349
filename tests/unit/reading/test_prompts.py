"""Prompts as token ids and in lists: OpenAI's own input forms."""

from __future__ import annotations

from typing import Any

import pytest

from db.modes import Mode
from producer.reading import BadLine, Line
from producer.reading.reader import parse


def parsed(item: object, **options: Any) -> Line | BadLine:
    return parse(item, source="x", number=1, **options)


@pytest.mark.parametrize(
    ("prompt", "stored"),
    [
        (["one"], {"prompt": "one"}),
        ([5], {"prompt": [5]}),
        ([5, 6, 7, 8], {"prompt": [5, 6, 7, 8]}),
        ([[5, 6]], {"prompt": [5, 6]}),
        (["one", "two"], {"prompts": ["one", "two"]}),
        ([[5, 6], [7, 8]], {"prompts": [[5, 6], [7, 8]]}),
    ],
)
def test_token_ids_and_lists_of_prompts_are_accepted(prompt: Any, stored: dict[str, Any]) -> None:
    body = {"model": "m", "prompt": prompt}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
    for mode, item in ((Mode.GENERATE, line), *((mode, {"prompt": prompt}) for mode in Mode)):
        read = parsed(item, mode=mode)
        assert isinstance(read, Line)
        assert read.request == stored


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ([], "the prompt is an empty list"),
        (["one", 5], "the prompt[1] is a number: it must be text, or a list of token ids"),
        ([5, "one"], "the prompt[1] is text: a token id is a whole number"),
        ([5, True], "the prompt[1] is a boolean"),
        ([5, 1.5], "the prompt[1] is a number: a token id is a whole number"),
        ([5, -1], "the prompt[1] is out of the range"),
        ([10**30], "the prompt[0] is out of the range"),
        (["one", ""], "the prompt[1] is empty"),
        (["one", "a\0"], "the prompt[1] has a NUL"),
        (["one", []], "the prompt[1] is an empty list"),
        (["one", None], "the prompt[1] is null"),
        ([["one"]], "the prompt[0][0] is text"),
        (["a"] * 2049, "the prompt is a list of 2,049: it may have 2,048"),
        ({"a": 1}, "the prompt is an object: it must be text"),
    ],
)
def test_bad_token_ids_and_lists_are_refused_by_place(prompt: Any, reason: str) -> None:
    bad = parsed({"prompt": prompt})
    assert isinstance(bad, BadLine)
    assert reason in bad.reason


def test_list_counts_against_the_limits_as_a_whole() -> None:
    bad = parsed({"prompt": ["a" * 60, "b" * 60]}, max_prompt_bytes=100)
    assert isinstance(bad, BadLine)
    assert "the list of prompts has 120 bytes, more than 100" in bad.reason
    bad = parsed({"prompt": list(range(30))}, max_prompt_bytes=100)
    assert isinstance(bad, BadLine)
    assert "the prompt has 120 bytes, more than 100" in bad.reason
    bad = parsed({"prompt": ["a"] * 100, "n": 100})
    assert isinstance(bad, BadLine)
    assert "asks for 10,000 samples" in bad.reason
    assert isinstance(parsed({"prompt": ["a"] * 100}, defaults={"n": 21}), BadLine)
    assert isinstance(parsed({"prompt": ["a"] * 100}, defaults={"n": 20}), Line)


def test_completion_after_several_prompts_is_refused() -> None:
    bad = parsed({"prompt": ["a", "b"], "completion": "c"}, mode=Mode.SCORE)
    assert isinstance(bad, BadLine)
    assert "several prompts: give each its own line" in bad.reason


@pytest.mark.parametrize(
    ("prompt", "stored"),
    [
        ("one", {"prompt": "one"}),
        (["one", "two"], {"prompts": ["one", "two"]}),
        ([5, 6], {"prompt": [5, 6]}),
    ],
)
def test_line_for_embeddings_is_one_of_mode_embed(prompt: Any, stored: dict[str, Any]) -> None:
    body = {"model": "m", "input": prompt, "encoding_format": "float", "user": "u"}
    line = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": body}
    read = parsed(line, mode=Mode.EMBED)
    assert isinstance(read, Line)
    assert (read.request, read.model, read.custom_id) == (stored, "m", "e")
    for more, reason in (
        ({"dimensions": 4}, "parameter 'dimensions' is 4"),
        ({"encoding_format": "base64"}, "parameter 'encoding_format' is 'base64'"),
        ({"input": None}, "needs 'input'"),
    ):
        bad = parsed({**line, "body": {**body, **more}}, mode=Mode.EMBED)
        assert isinstance(bad, BadLine)
        assert reason in bad.reason
