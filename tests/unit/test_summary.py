"""What the summary of a batch says besides its counts."""

from __future__ import annotations

from typing import Any

import pytest

from db.records import FailureGroup
from db.sample_counts import SampleCounts
from producer.summary import remarks, summary, summary_document
from tests.support.results import BATCH_ID, batch

AT_DEFAULT = "at max_tokens=128, the default: give -p max_tokens=512"
UNCERTAIN = (
    "where a line has none) or because the model's context was full: give more, or shorter prompts"
)
CUT = SampleCounts(samples=300, truncated=12, shortest_cut=128, longest_cut=128)


def group(code: str = "prompt_too_long", count: int = 2, message: str = "too long") -> FailureGroup:
    return FailureGroup(code, count, f"{BATCH_ID}-17", message)


def test_batch_without_cuts_and_failures_has_no_remarks() -> None:
    assert remarks(batch(sample_counts=SampleCounts(samples=3)), []) == []


def test_headline_counts_cut_texts() -> None:
    done = batch(succeeded=300, total=300, completion_tokens=9_000, sample_counts=CUT)
    assert summary(done) == (
        "completed: 300 of 300 succeeded, 12 cut, 9,000 tokens in 1.2 s (7,200 tok/s)"
    )


@pytest.mark.parametrize(
    ("params", "counts", "text"),
    [
        ({}, CUT, AT_DEFAULT),
        (
            {"max_tokens": 64},
            SampleCounts(300, 12, 64, 64),
            "at max_tokens=64: give -p max_tokens=256",
        ),
        (
            {"max_tokens": 64, "retry_max_tokens": 100},
            SampleCounts(300, 12, 100, 100),
            "at retry_max_tokens=100: give -p retry_max_tokens=400",
        ),
        ({"max_length": 50}, CUT, "at max_length=50: give -p max_length=200"),
        (
            {},
            SampleCounts(300, 12, 8, 128),
            f"at 8 to 128 tokens, by max_tokens (128 {UNCERTAIN}",
        ),
        (
            {"max_tokens": 512},
            SampleCounts(300, 12, 40, 40),
            f"at 40 tokens, by max_tokens (512 {UNCERTAIN}",
        ),
        (
            {"regex": "[a-z]+"},
            CUT,
            f"{AT_DEFAULT}; what is cut does not follow its structure",
        ),
    ],
)
def test_cut_texts_are_told_with_their_limit_and_the_fix(
    params: dict[str, Any], counts: SampleCounts, text: str
) -> None:
    (remark,) = remarks(batch(params=params, sample_counts=counts), [])
    assert remark == f"12 of 300 texts were cut {text}"


def test_failures_are_told_by_code_with_an_example() -> None:
    told = remarks(batch(failed=3), [group(), group("engine_error", 1, "it\nbroke " + "x" * 300)])
    assert told[0] == f"2 failed with prompt_too_long, such as {BATCH_ID}-17: too long"
    assert told[1].startswith(f"1 failed with engine_error, such as {BATCH_ID}-17: it broke xxx")
    assert told[1].endswith("x…")


def test_failures_beyond_the_first_codes_are_counted() -> None:
    told = remarks(batch(failed=40), [group(f"code_{number}", 2) for number in range(7)])
    assert len(told) == 6
    assert told[-1] == (f"30 more failed: 'promptmill results {BATCH_ID} --failed' lists them all")


def test_summary_document_has_failures_and_remarks() -> None:
    document = summary_document(batch(failed=2), [group()])
    assert document["failures"] == [
        {
            "code": "prompt_too_long",
            "count": 2,
            "example": {"id": f"{BATCH_ID}-17", "message": "too long"},
        }
    ]
    assert document["remarks"] == [
        f"2 failed with prompt_too_long, such as {BATCH_ID}-17: too long"
    ]
