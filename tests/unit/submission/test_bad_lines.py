"""Bad lines with the same reason are reported together."""

from __future__ import annotations

from producer.reading import BadLine
from producer.submission.bad_lines import Group, grouped
from producer.submission.order import InvalidInput


def bad(*numbers: int, reason: str = "is bad", source: str = "a.jsonl") -> list[BadLine]:
    return [BadLine(source, number, reason) for number in numbers]


def test_lines_with_the_same_reason_are_one_group() -> None:
    lines = [*bad(1, 2), *bad(3, reason="is empty"), *bad(4, 7), *bad(9, source="b.jsonl")]
    assert grouped(lines) == [
        Group("a.jsonl: lines 1-2, 4, 7: is bad", 4),
        Group("a.jsonl:3: is empty", 1),
        Group("b.jsonl:9: is bad", 1),
    ]


def test_many_separate_lines_are_counted() -> None:
    (group,) = grouped(bad(*range(1, 11), 20, 30, 40, 50, 51))
    assert group.message == "a.jsonl: lines 1-10, 20, 30 and 3 more: is bad"


def test_units_other_than_lines_are_named() -> None:
    rows = [BadLine("a.csv", number, "is bad", unit="row") for number in (1, 2)]
    assert grouped(rows)[0].message == "a.csv: rows 1-2: is bad"


def test_error_names_the_first_group_and_counts_the_other_lines() -> None:
    whole = InvalidInput(bad(*range(1, 11)), 10)
    assert whole.message == "a.jsonl: lines 1-10: is bad; nothing was queued"
    part = InvalidInput([*bad(1, 2), *bad(3, reason="is empty")], 8)
    assert part.message == (
        "a.jsonl: lines 1-2: is bad; nothing was queued, for these and 6 more bad lines"
    )
