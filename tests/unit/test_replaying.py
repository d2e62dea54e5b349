"""Where two texts part."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from db.errors import UsageError
from db.modes import Mode
from db.records import Job
from db.states import JobState
from producer.replaying import differences, replay


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
