"""Where two texts part."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from db.errors import UsageError
from db.modes import Mode
from db.records import Job, Provenance
from db.states import JobState
from producer.replaying import _environment, differences, replay


def sample(text: str, reason: str = "stop") -> dict[str, str]:
    return {"text": text, "finish_reason": reason}


@pytest.mark.parametrize(
    ("stored", "replayed", "at"),
    [("abcd", "abXd", 2), ("abc", "abcd", 3), ("abcd", "abc", 3), ("", "a", 0), ("äö", "äo", 1)],
)
def test_given_another_text_when_compared_then_the_first_difference_is_told(
    stored: str, replayed: str, at: int
) -> None:
    (found,) = differences([sample("x"), sample(stored)], [sample("x"), sample(replayed)])
    assert (found.sample, found.at) == (1, at)
    assert (found.stored, found.replayed) == (stored, replayed)


def test_given_the_same_texts_when_compared_then_nothing_differs() -> None:
    assert differences([sample("a"), sample("b")], [sample("a"), sample("b")]) == []


def test_given_the_same_text_that_ended_otherwise_when_compared_then_its_end_differs() -> None:
    (found,) = differences([sample("abc", "stop")], [sample("abc", "length")])
    assert found.at == 3
    assert (found.stored_finish_reason, found.replayed_finish_reason) == ("stop", "length")


@pytest.mark.parametrize("mode", [Mode.SCORE, Mode.EMBED])
def test_given_a_job_without_a_text_when_replayed_then_the_reason_is_told(mode: Mode) -> None:
    values: dict[str, Any] = dict.fromkeys(field.name for field in fields(Job))
    job = Job(**{**values, "id": "b-1", "mode": mode, "state": JobState.SUCCEEDED})
    with pytest.raises(UsageError, match=f"b-1 is of mode {mode}: only generated text"):
        replay(job)


@pytest.mark.parametrize(
    ("dtype", "now", "dtype_then", "options_then"),
    [
        ("float32", {}, "float32", ""),
        ("float32", {"quantization": "bnb-8bit"}, "float32", ""),
        ("bfloat16, bnb-4bit", {}, "bfloat16", {"quantization": "bnb-4bit"}),
        (
            "bfloat16, bnb-4bit",
            {"quantization": "bnb-8bit", "batching": "static"},
            "bfloat16",
            {"quantization": "bnb-4bit", "batching": "static"},
        ),
        # A checkpoint that has its weights packed.
        ("bfloat16, gptq", {}, "bfloat16", ""),
        ("bfloat16, bnb", {"attention": "sdpa"}, "bfloat16", {"attention": "sdpa"}),
    ],
)
def test_given_how_weights_were_packed_when_replayed_then_they_are_packed_so_again(
    dtype: str,
    now: dict[str, str],
    dtype_then: str,
    options_then: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROMPTMILL_ENGINE_OPTIONS", json.dumps(now))
    made = Provenance(
        model="m",
        revision=None,
        weights=None,
        tokenizer=None,
        adapter=None,
        engine="transformers",
        engine_version="1",
        backend=None,
        dtype=dtype,
        device="cpu",
        hardware=None,
    )
    asked = _environment(made, None)
    told = asked["PROMPTMILL_ENGINE_OPTIONS"]
    assert asked["PROMPTMILL_DTYPE"] == dtype_then
    assert (json.loads(told) if told else "") == options_then
