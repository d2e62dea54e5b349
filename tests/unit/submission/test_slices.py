"""Lines in slices: bounded in number and in size, and numbered through."""

from __future__ import annotations

import pytest

from producer.reading import BadLine, Line
from producer.submission import slices as module
from producer.submission.checks import LineChecks
from producer.submission.order import Order
from producer.submission.slices import Slice, slices


def cut(lines: list[Line | BadLine]) -> list[Slice]:
    return list(slices(lines, LineChecks(Order(model="m"))))


def prompts(count: int, text: str = "hello") -> list[Line | BadLine]:
    return [Line("a", number, {"prompt": text}, f"c{number}") for number in range(1, count + 1)]


def test_given_many_lines_when_cut_then_every_slice_is_full_and_jobs_are_numbered_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SLICE", 7)
    found = cut(prompts(20))
    assert [len(part.jobs) for part in found] == [7, 7, 6]
    assert [job.line for part in found for job in part.jobs] == list(range(1, 21))
    assert found[0].jobs[0] == (1, '{"prompt":"hello"}', "c1", None, None)


def test_given_long_prompts_when_cut_then_a_slice_holds_few_of_them() -> None:
    found = cut(prompts(1_000, "x" * 100_000))
    assert len(found) > 4
    assert max(len(part.jobs) for part in found) <= 400
    assert sum(len(part.jobs) for part in found) == 1_000


def test_given_a_bad_line_when_cut_then_its_job_has_its_reason_and_no_request() -> None:
    (part,) = cut([*prompts(1), BadLine("a", 2, "it is bad", "c2")])
    assert part.jobs[1] == (2, "{}", "c2", "it is bad", None)
    assert [line.number for line in part.bad] == [2]


def test_given_nothing_when_cut_then_there_is_no_slice() -> None:
    assert cut([]) == []
